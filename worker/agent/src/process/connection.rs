//! The agent's end of a process's connection.

use lockstep_rpc::agent_command::Body as Command;
use lockstep_rpc::{AgentCommand, Assignment};
use tokio::sync::mpsc;

use crate::event::ConnectionId;

/// An open connection; dropping it closes it.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    commands: mpsc::Sender<AgentCommand>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, commands: mpsc::Sender<AgentCommand>) -> Self {
        Self { id, commands }
    }

    /// Queues the assignment.
    pub(super) fn assign(&self, assignment: &Assignment) {
        // The queue is new, and so has room.
        self.tell(Command::Assign(assignment.clone()));
    }

    /// Queues a command. False if the queue is full or closed: the process reads no commands, and probably hangs up soon.
    pub(super) fn tell(&self, command: Command) -> bool {
        self.commands.try_send(AgentCommand { body: Some(command) }).is_ok()
    }
}
