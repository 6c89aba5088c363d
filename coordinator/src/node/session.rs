//! The session of one attached node: events to the node, and its reports to the event loop.

use lockstep_common::{NodeId, RunId};
use lockstep_core::command::{Messenger, NodeJoined};
use lockstep_core::state::Device;
use lockstep_core::{Assignment, Command, Outcome};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::oneshot;

use super::error::CallError;
use super::handle::{Handle, now_ms};
use super::pending::{Pending, Report};
use super::request::Request;
use super::sessions::{Attached, Desired};

/// An event for the node.
#[derive(Debug)]
pub enum Event {
    /// The node's desired state, complete, at the start of the session and after each change.
    Desired(Desired),
    /// A client requests the log of a process.
    Log(LogRequest),
    /// The session has ended: a newer stream replaced it, the node's lease expired, or the coordinator is shutting down.
    Closed,
}

/// An attached node. Dropping it detaches the node; its processes stay placed until its lease expires.
#[derive(Debug)]
pub struct Session {
    handle: Handle,
    messenger: Messenger,
    attached: Attached,
}

impl Session {
    pub(super) fn new(handle: Handle, messenger: Messenger, mut attached: Attached) -> Self {
        // The first event is the current desired state.
        attached.desired.mark_changed();
        Self { handle, messenger, attached }
    }

    /// Id of the node.
    pub fn node(&self) -> &NodeId {
        &self.messenger.node
    }

    /// The next event for the node. Several changes since the last call are one event. Cancellation-safe.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            request = self.attached.logs.recv() => request.map_or(Event::Closed, Event::Log),
            changed = self.attached.desired.changed() => match changed {
                Ok(()) => Event::Desired(self.attached.desired.borrow_and_update().clone()),
                Err(_) => Event::Closed,
            },
        }
    }

    /// Applied log index. It includes every report whose outcome was returned.
    pub fn applied(&self) -> u64 {
        self.handle.applied()
    }

    /// Restarts the node's lease. Call it for each message of the node.
    pub fn heard(&self) {
        self.handle.heard(&self.messenger.node);
    }

    /// Records that the node's agent is shutting down and stops its processes.
    pub async fn leaving(&self) -> Result<(), CallError> {
        self.handle.leaving(self.messenger.clone()).await
    }

    /// The assignment of a generation of a run. `None` if the node has no process in it, or if a newer generation exists.
    pub async fn assignment(&self, run: RunId, generation: u64) -> Result<Option<Assignment>, CallError> {
        self.handle.assignment(self.messenger.node.clone(), run, generation).await
    }

    /// Queues a report of a process of the node. Reports are applied in the order of the calls.
    pub async fn report(&self, report: Report) -> Result<Pending, CallError> {
        self.handle.report(report, self.messenger.clone()).await
    }

    /// Forwards the node's answer to a log request.
    pub async fn log_read(&self, reply: LogReply) -> Result<(), CallError> {
        self.handle.log_read(self.messenger.node.clone(), reply).await
    }
}

impl Handle {
    /// Joins a node whose agent has opened its stream, and starts its session.
    ///
    /// # Errors
    /// `Refused(NodeTaken)` while another agent with this name may be running.
    pub async fn attach(
        &self,
        messenger: Messenger,
        agent: String,
        host: String,
        devices: Vec<Device>,
    ) -> Result<Session, CallError> {
        let Messenger { node, incarnation } = messenger.clone();
        let at_ms = now_ms();
        let joined = Command::NodeJoined(NodeJoined { at_ms, node, incarnation, agent, host, devices });
        if let Outcome::Refused(refusal) = self.propose(joined).await?.outcome().await? {
            return Err(refusal.into());
        }
        let (attached, answer) = oneshot::channel();
        self.send(Request::Attach(messenger.node.clone(), attached)).await?;
        let attached = answer.await.map_err(|_| CallError::Stopping)?;
        Ok(Session::new(self.clone(), messenger, attached))
    }
}
