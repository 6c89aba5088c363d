//! Errors of calls to the event loop.

use lockstep_common::NodeId;
use lockstep_core::Refusal;
use lockstep_core::replica::ProposeError;
use lockstep_core::state::NotFound;

/// A call to the event loop failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The command is in the log, and changed nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The name or prefix matches nothing, or more than one object.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The command is not in the log, or its outcome is unknown. The call can be repeated with the same request id.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The event loop has stopped.
    #[error("the coordinator is shutting down")]
    Stopping,
    /// The node's agent has no stream to this coordinator.
    #[error("node `{0}` is not connected")]
    NotConnected(NodeId),
    /// `getrandom` failed, so that no id or secret can be drawn.
    #[error("cannot get random bytes from the system")]
    Entropy,
}
