//! Why the event loop does not answer a call.

use lockstep_common::NodeId;
use lockstep_core::Refusal;
use lockstep_core::replica::ProposeError;
use lockstep_core::state::NotFound;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Applied, and refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing, or not one thing, has that name.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The log did not take it, or may have. With the same request id it may be asked again.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The coordinator is ending.
    #[error("the coordinator is shutting down")]
    Stopping,
    /// No agent of that node is connected.
    #[error("node `{0}` is not connected")]
    NotConnected(NodeId),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Entropy,
}
