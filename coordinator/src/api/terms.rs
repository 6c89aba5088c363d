//! Parameters that all nodes' streams share.

use std::path::PathBuf;
use std::time::Duration;

use crate::identity::Identity;
use crate::identity::start_history::StartHistory;

/// Parameters of the streams of all nodes.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Name of the coordinator in logs of nodes: `lockstep-coordinator@ADDRESS`.
    pub cluster: String,
    /// Time without a message after which a node counts as lost.
    pub lease: Duration,
    /// Directory of the blob store.
    pub store: PathBuf,
    /// Identity that the store must have.
    pub identity: Identity,
    /// Starts of the coordinator's data directory.
    pub starts: StartHistory,
}
