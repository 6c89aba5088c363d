//! The replicated state: the result of all applied commands of the log.
//!
//! [`ClusterState::apply`] is a function of state, index and command (I2). The state records which rows ([`RowKey`]) a command changed, so
//! that only these are written to disk.

pub(crate) mod accept;
mod archived;
mod checkpoints;
mod cluster;
mod corruption;
mod ending;
mod find;
mod node;
mod nodes;
mod queue;
mod reports;
mod requests;
mod retries;
mod row_key;
mod rows;
mod runs;
mod witness;

pub use archived::Listed;
pub use checkpoints::Written;
pub use cluster::ClusterState;
pub use find::{Found, NotFound};
pub use node::{Device, Fence, Node, Presence};
pub use nodes::NODES;
pub use reports::{Progress, ReportBody};
pub(crate) use requests::Answered;
pub use retries::Retries;
pub use row_key::{RowKey, StateError};
pub(crate) use runs::TEXT_BYTES;
pub use runs::{
    ArchivedRun, Checkpoint, Claim, Corruption, FailedCheckpoint, Grounds, Measured, MeasuredNumerics, Owed,
    ProcessExit, ProcessPhase, ProcessState, Replay, Restore, Run, RunState, Status, StatusKind, Submission,
    Unconfirmed, Verdict,
};
