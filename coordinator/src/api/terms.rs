//! The terms of a conversation with a node.

use std::path::PathBuf;
use std::time::Duration;

use crate::identity::Identity;
use crate::identity::start_history::StartHistory;

/// What every conversation is told at its start, or passes on.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The coordinator's name for people.
    pub cluster: String,
    /// Silence after which a node is given up.
    pub lease: Duration,
    /// The blob store's directory.
    pub store: PathBuf,
    /// Which store that must be.
    pub identity: Identity,
    /// The starts of the coordinator's data directory.
    pub starts: StartHistory,
}
