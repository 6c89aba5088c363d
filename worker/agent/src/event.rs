//! The events that the agent's owner task reacts to.

use lockstep_rpc::{AgentCommand, AgentMessage, CoordinatorMessage, ProcessMessage};
use tokio::sync::{mpsc, oneshot};

use crate::child::Exit;
use crate::child::ProcessKey;
use crate::programs::spec::Ended;

/// Number of a connection on the socket. It tells late events of an old connection from those of the current one.
pub(crate) type ConnectionId = u64;

/// What the session, a connection, a child or a build reports to the owner task.
#[derive(Debug)]
pub(crate) enum Event {
    /// The coordinator accepted this node. Messages sent into `outbox` reach it, or are lost with the stream.
    Attached {
        outbox: mpsc::Sender<AgentMessage>,
        /// Directory of its store.
        store: String,
    },
    /// A message of the coordinator arrived.
    Told(Box<CoordinatorMessage>),
    /// The stream to the coordinator ended.
    Detached,
    /// The coordinator refused this node, and would refuse it again; the text says why.
    Refused(String),
    /// A process connected and sent its key.
    Joined { key: ProcessKey, connection: ConnectionId, commands: mpsc::Sender<AgentCommand> },
    /// A message of a process arrived. Its connection is not read further until `accepted` is answered, and is closed if
    /// `accepted` is dropped.
    Message { key: ProcessKey, connection: ConnectionId, message: ProcessMessage, accepted: oneshot::Sender<()> },
    /// A process's connection ended; all messages that it carried came before this event.
    HungUp { key: ProcessKey, connection: ConnectionId },
    /// The operating-system process ended; messages may still arrive on its connection.
    Ended { key: ProcessKey, exit: Exit },
    /// The linger of an ended process is over: a connection that it opened would be known by now.
    LingerExpired { key: ProcessKey },
    /// A build succeeded or failed.
    Built(Ended),
}

/// Events on their way to the owner. Connections wait for each message's acceptance, so this bounds bursts of
/// connections and children, not bytes.
pub(crate) const EVENT_CAPACITY: usize = 64;
