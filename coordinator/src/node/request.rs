//! What the event loop can be asked: one closed enum.

use std::fmt;

use lockstep_common::NodeId;
use lockstep_core::replica::ProposeError;
use lockstep_core::state::NotFound;
use lockstep_core::{ClusterState, Command, Outcome, Refusal};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::{mpsc, oneshot, watch};

use super::sessions::Desired;
use super::touched::ChangesSince;

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

/// Where a proposal's outcome goes.
pub(super) type Reply = oneshot::Sender<Result<Outcome, CallError>>;

/// A read of the state.
pub(super) type Read = Box<dyn FnOnce(&ClusterState) + Send>;

/// What an attached node's session is given.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) logs: mpsc::Receiver<LogRequest>,
}

/// A request.
pub(super) enum Request {
    /// Put a command into the log; the reply comes after it was applied.
    Propose(Box<Command>, Reply),
    /// Look at the state as applied so far.
    Read(Read),
    /// Say what changed behind a log index.
    ChangesSince(u64, oneshot::Sender<ChangesSince>),
    /// A joined node's stream is open; a stream that it had before ends.
    Attach(NodeId, oneshot::Sender<Attached>),
    /// Ask a node for what a process wrote. The loop numbers the request.
    ReadLog(NodeId, LogRequest, oneshot::Sender<Result<LogReply, CallError>>),
    /// A node's answer to that.
    LogRead(NodeId, LogReply),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propose(command, _) => f.debug_tuple("Propose").field(command).finish(),
            Self::Read(_) => f.write_str("Read"),
            Self::ChangesSince(index, _) => f.debug_tuple("ChangesSince").field(index).finish(),
            Self::Attach(node, _) => f.debug_tuple("Attach").field(node).finish(),
            Self::ReadLog(node, request, _) => f.debug_tuple("ReadLog").field(node).field(request).finish(),
            Self::LogRead(node, reply) => f.debug_tuple("LogRead").field(node).field(reply).finish(),
        }
    }
}
