//! What the page's handlers need.

use axum::extract::FromRef;

use super::events::Events;
use super::large::Large;
use crate::api::blobs::Blobs;
use crate::query::Answers;

/// What handlers need.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) answers: Answers,
    pub(super) events: Events,
    pub(super) blobs: Blobs,
    pub(super) large: Large,
    /// Whether only this machine can reach it.
    pub(super) local: bool,
}

impl FromRef<Site> for Events {
    fn from_ref(site: &Site) -> Self {
        site.events.clone()
    }
}
