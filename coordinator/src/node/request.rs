//! What the event loop can be asked: one closed enum.

use std::fmt;

use lockstep_common::NodeId;
use lockstep_core::{ClusterState, Command, Outcome};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::oneshot;

use super::error::CallError;
use super::sessions::Attached;
use super::touched::ChangesSince;

/// Where a proposal's outcome goes.
pub(super) type Reply = oneshot::Sender<Result<Outcome, CallError>>;

/// A read of the state.
pub(super) type Read = Box<dyn FnOnce(&ClusterState) + Send>;

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
