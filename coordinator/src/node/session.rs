//! One attached node's side of the event loop.

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

/// What the node must be told.
#[derive(Debug)]
pub enum Event {
    /// The processes that it should run, now or anew.
    Desired(Desired),
    /// Somebody wants to read what a process wrote.
    Log(LogRequest),
    /// Its session is over: a newer stream took its place, its lease ran out, or the coordinator is ending.
    Closed,
}

/// An attached node. Dropping it detaches the node, which loses nothing before its lease runs out.
#[derive(Debug)]
pub struct Session {
    handle: Handle,
    messenger: Messenger,
    attached: Attached,
}

impl Session {
    pub(super) fn new(handle: Handle, messenger: Messenger, mut attached: Attached) -> Self {
        // The state as of now is the first event.
        attached.desired.mark_changed();
        Self { handle, messenger, attached }
    }

    /// The node.
    pub fn node(&self) -> &NodeId {
        &self.messenger.node
    }

    /// The next thing to tell it. Changes that were missed are one. May be dropped and called again.
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

    /// Log index that is applied, at least that of every report that was answered.
    pub fn applied(&self) -> u64 {
        self.handle.applied()
    }

    /// The node said something: its lease begins anew.
    pub fn heard(&self) {
        self.handle.heard(&self.messenger.node);
    }

    /// The node's agent ends, and stops its processes.
    pub async fn leaving(&self) -> Result<(), CallError> {
        self.handle.leaving(self.messenger.clone()).await
    }

    /// The assignment of this generation of a run; none if the node has no process of it, or not any more.
    pub async fn assignment(&self, run: RunId, generation: u64) -> Result<Option<Assignment>, CallError> {
        self.handle.assignment(self.messenger.node.clone(), run, generation).await
    }

    /// Queues what a process of the node said, in the order of the calls.
    pub async fn report(&self, report: Report) -> Result<Pending, CallError> {
        self.handle.report(report, self.messenger.clone()).await
    }

    /// The node's answer to a log request.
    pub async fn log_read(&self, reply: LogReply) -> Result<(), CallError> {
        self.handle.log_read(self.messenger.node.clone(), reply).await
    }
}

impl Handle {
    /// A node's agent has opened its stream.
    ///
    /// # Errors
    /// `Refused(NodeTaken)` while another agent of this name may be there.
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
