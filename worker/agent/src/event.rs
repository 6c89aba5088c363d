//! Everything that the agent's owner task reacts to.

use lockstep_rpc::{AgentCommand, AgentMessage, CoordinatorMessage, ProcessMessage};
use tokio::sync::{mpsc, oneshot};

use crate::child::Exit;
use crate::child::ProcessKey;
use crate::programs::spec::Ended;

/// Numbers connections on the socket, so that a late event of an old one is told from the present one's.
pub(crate) type ConnectionId = u64;

/// One closed enum: what a session, a connection or a child says to the owner task.
#[derive(Debug)]
pub(crate) enum Event {
    /// A coordinator welcomed us; what is sent into `outbox` reaches it, or is lost with the stream.
    Attached {
        outbox: mpsc::Sender<AgentMessage>,
        /// Directory of its store.
        store: String,
    },
    /// The coordinator said something.
    Told(Box<CoordinatorMessage>),
    /// The stream is gone.
    Detached,
    /// The coordinator will not take this node, whatever it tries; why.
    Refused(String),
    /// A process connected and said who it is.
    Joined { key: ProcessKey, connection: ConnectionId, commands: mpsc::Sender<AgentCommand> },
    /// A process said something. Its connection is not read on before `accepted` is answered; dropped, the connection
    /// is closed.
    Message { key: ProcessKey, connection: ConnectionId, message: ProcessMessage, accepted: oneshot::Sender<()> },
    /// A process's connection ended; everything that it said has come.
    HungUp { key: ProcessKey, connection: ConnectionId },
    /// A process ended.
    Ended { key: ProcessKey, exit: Exit },
    /// Whatever an ended process said must have come by now.
    LingerExpired { key: ProcessKey },
    /// A program was built, or cannot be.
    Built(Ended),
}

/// Events on their way to the owner. Connections wait for each message's acceptance, so this bounds bursts of
/// connections and children, not bytes.
pub(crate) const EVENT_CAPACITY: usize = 64;
