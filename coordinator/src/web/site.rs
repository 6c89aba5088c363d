//! Shared state of the page's handlers.

use axum::extract::FromRef;

use super::events::Events;
use super::large::Large;
use crate::api::blobs::Blobs;
use crate::query::Answers;

/// Shared state of all handlers.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) answers: Answers,
    pub(super) events: Events,
    pub(super) blobs: Blobs,
    pub(super) large: Large,
    /// Whether the page listens on a loopback address.
    pub(super) local: bool,
}

impl FromRef<Site> for Events {
    fn from_ref(site: &Site) -> Self {
        site.events.clone()
    }
}
