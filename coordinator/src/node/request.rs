//! Requests to the event loop.

use std::fmt;

use lockstep_common::NodeId;
use lockstep_core::{ClusterState, Command, Outcome};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::oneshot;

use super::error::CallError;
use super::sessions::Attached;
use super::touched::ChangesSince;

/// Receives the outcome of a proposal.
pub(super) type Reply = oneshot::Sender<Result<Outcome, CallError>>;

/// Runs in the event loop, with the applied state.
pub(super) type Read = Box<dyn FnOnce(&ClusterState) + Send>;

/// One variant per method of [`super::Handle`].
pub(super) enum Request {
    /// Append a command to the log. The reply follows once the command is applied.
    Propose(Box<Command>, Reply),
    /// Read the applied state.
    Read(Read),
    /// List the runs and nodes that changed after a log index.
    ChangesSince(u64, oneshot::Sender<ChangesSince>),
    /// Start the session of a node that has joined. An earlier session of the node ends.
    Attach(NodeId, oneshot::Sender<Attached>),
    /// Read the log of a process from a node. The event loop sets the number of the request.
    ReadLog(NodeId, LogRequest, oneshot::Sender<Result<LogReply, CallError>>),
    /// Forward a node's answer to `ReadLog`.
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
