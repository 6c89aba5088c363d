//! The replicated state: what the log's commands have made of the cluster so far.
//!
//! [`ClusterState::apply`] is a function of state, index and command (I2). What a command changed is known by row
//! ([`RowKey`]), so that a store writes only that.

pub(crate) mod accept;
mod apply;
mod archived;
mod cluster;
mod commit;
mod corruption;
mod ending;
mod find;
mod node;
mod nodes;
mod owed;
mod queue;
mod reports;
mod requests;
mod rows;
mod runs;
mod witness;
mod written;

pub use apply::Applied;
pub use archived::{ArchivedRun, Listed};
pub use cluster::ClusterState;
pub use corruption::{Claim, Corruption, Grounds, Verdict};
pub use find::{Found, NotFound};
pub use node::{Fence, Node, Presence};
pub use nodes::NODES;
pub use owed::Owed;
pub use rows::{RowKey, StateError};
pub(crate) use runs::TEXT_BYTES;
pub use runs::{
    Checkpoint, FailedCheckpoint, Measured, MeasuredNumerics, ProcessExit, ProcessPhase, ProcessState, Restore, Run,
    RunState, Status, Submission,
};
pub use witness::Unconfirmed;
pub use written::Written;
