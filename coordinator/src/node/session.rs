//! One attached node's side of the event loop, and outcomes that are awaited later.

use lockstep_common::{NodeId, RunId};
use lockstep_core::command::Messenger;
use lockstep_core::{Assignment, Outcome};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::handle::{Handle, Report};
use super::request::{Attached, CallError};
use super::sessions::Desired;

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

/// The outcome of a command that was queued.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Outcome, CallError>>);

impl Pending {
    pub(super) fn new(outcome: oneshot::Receiver<Result<Outcome, CallError>>) -> Self {
        Self(outcome)
    }

    /// Waits until it was applied.
    pub async fn outcome(mut self) -> Result<Outcome, CallError> {
        self.wait().await
    }

    /// As [`Pending::outcome`]; may be dropped and called again until it has answered.
    pub async fn wait(&mut self) -> Result<Outcome, CallError> {
        (&mut self.0).await.map_err(|_| CallError::Stopping)?
    }

    /// The outcome, if it is there already.
    pub fn now(&mut self) -> Option<Result<Outcome, CallError>> {
        match self.0.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err(CallError::Stopping)),
        }
    }
}
