//! The handle of the event loop: one async method per request.

use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{Digest, NodeId, RequestId, RunId};
use lockstep_core::command::{
    self, Annotate, Cancel, FenceDevices, MadeOf, Messenger, NodeForgotten, NodeLeaving, NodeLost, Original, ReplayRun,
    Resume, Submit, check_annotation,
};
use lockstep_core::desired::{assignment, desired};
use lockstep_core::state::Replay;
use lockstep_core::{Assignment, ClusterState, Command, Outcome};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::error::CallError;
use super::leases::Leases;
use super::pending::{Pending, Report};
use super::request::Request;
use super::touched::ChangesSince;

/// Capacity of each queue. Large enough that many requests share one disk write; small enough that callers wait for a slow disk.
const QUEUE: usize = 1024;

/// The event loop's ends of the handle's queues.
pub(super) struct Queues {
    /// Requests of agents, commands, and reads of the coordinator's own tasks.
    pub(super) requests: mpsc::Receiver<Request>,
    /// Reads of clients and of the page.
    pub(super) reads: mpsc::Receiver<Request>,
}

/// Sends requests to the event loop. Clones share its queues.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    reads: mpsc::Sender<Request>,
    changes: watch::Receiver<u64>,
    serving: watch::Receiver<bool>,
    leases: Leases,
}

/// Notifies of changes of the state. Several changes between two calls count as one.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Waits for a change since the last call.
    ///
    /// # Errors
    /// `Stopping` once the event loop has ended.
    pub async fn next(&mut self) -> Result<(), CallError> {
        self.0.changed().await.map_err(|_| CallError::Stopping)
    }
}

impl Handle {
    /// Creates a handle, and the queues that the event loop reads.
    pub(super) fn new(changes: watch::Receiver<u64>, serving: watch::Receiver<bool>, leases: Leases) -> (Self, Queues) {
        let (requests, said) = mpsc::channel(QUEUE);
        let (reads, asked) = mpsc::channel(QUEUE);
        (Self { requests, reads, changes, serving, leases }, Queues { requests: said, reads: asked })
    }

    /// Waits until this coordinator is the leader and has applied every acknowledged command.
    ///
    /// # Errors
    /// `Stopping` if the event loop ends first.
    pub async fn serving(&self) -> Result<(), CallError> {
        let mut serving = self.serving.clone();
        serving.wait_for(|serving| *serving).await.map(|_| ()).map_err(|_| CallError::Stopping)
    }

    /// Submits a job. `job` must be checked and in canonical form.
    pub async fn submit(
        &self,
        request: RequestId,
        job: String,
        base_dir: String,
        code: Option<CodeVersion>,
        data: Vec<DataFile>,
    ) -> Result<RunId, CallError> {
        let (at_ms, secret) = (now_ms(), secret()?);
        self.run(Command::Submit(Submit { request, at_ms, job, base_dir, code, data, secret })).await
    }

    /// Starts a new run from a checkpoint. `made_of` is the contents of the checkpoint's manifest.
    ///
    /// The new run may differ from the checkpoint in the keys `accepted` (`code`, `numerics[.key]`, `data[.path]`), in `base_dir`, `data`
    /// and `code`.
    pub async fn resume(
        &self,
        request: RequestId,
        (checkpoint, made_of): (Digest, MadeOf),
        accepted: Vec<String>,
        base_dir: Option<String>,
        data: Vec<DataFile>,
        code: Option<CodeVersion>,
    ) -> Result<RunId, CallError> {
        let (at_ms, secret, made_of) = (now_ms(), secret()?, Box::new(made_of));
        let resume = Resume { request, at_ms, checkpoint, made_of, accepted, base_dir, data, code, secret };
        self.run(Command::Resume(resume)).await
    }

    /// Starts a run that re-runs steps of `original`, from `checkpoint`, or if there is none from the start of `original`.
    pub async fn replay(
        &self,
        request: RequestId,
        replay: Replay,
        checkpoint: Option<Digest>,
        original: Original,
    ) -> Result<RunId, CallError> {
        let (at_ms, secret, original) = (now_ms(), secret()?, Box::new(original));
        self.run(Command::Replay(ReplayRun { request, at_ms, replay, checkpoint, original, secret })).await
    }

    /// Cancels a run, named by its id or a unique prefix.
    pub async fn cancel(&self, request: RequestId, prefix: &str) -> Result<RunId, CallError> {
        let run = self.find_run(prefix).await?;
        match self
            .propose(Command::Cancel(Cancel { request, at_ms: now_ms(), run: run.clone() }))
            .await?
            .outcome()
            .await?
        {
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Run(_) | Outcome::Done => Ok(run),
        }
    }

    /// Sets tags or the note of a run, named by its id or a unique prefix. `None` leaves them unchanged.
    pub async fn annotate(
        &self,
        request: RequestId,
        prefix: &str,
        tags: Option<Vec<String>>,
        note: Option<String>,
    ) -> Result<RunId, CallError> {
        // Before the proposal, because the log would keep even a refused command for a while.
        check_annotation(tags.as_deref().unwrap_or_default(), note.as_deref().unwrap_or_default())?;
        let run = self.find_run(prefix).await?;
        match self
            .propose(Command::Annotate(Annotate { request, run: run.clone(), tags, note }))
            .await?
            .outcome()
            .await?
        {
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Run(_) | Outcome::Done => Ok(run),
        }
    }

    /// Fences the devices with this name (`None`: all) of `node`, or if `fenced` is false removes their fences.
    pub async fn fence(
        &self,
        request: RequestId,
        node: NodeId,
        device: Option<String>,
        fenced: bool,
    ) -> Result<(), CallError> {
        let command = Command::Fence(FenceDevices { request, at_ms: now_ms(), node, device, fenced });
        match self.propose(command).await?.outcome().await? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Run(_) | Outcome::Done => Ok(()),
        }
    }

    /// Removes a node that is gone or lost.
    pub async fn remove_node(&self, request: RequestId, node: NodeId) -> Result<(), CallError> {
        match self.propose(Command::NodeForgotten(NodeForgotten { request, node })).await?.outcome().await? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Run(_) | Outcome::Done => Ok(()),
        }
    }

    /// Waits until no run has processes on any node.
    pub async fn idle(&self) -> Result<(), CallError> {
        let mut changes = self.changes();
        while !self.read(|state| state.runs().into_iter().all(|run| desired(run).is_empty())).await? {
            changes.next().await?;
        }
        Ok(())
    }

    /// Cancels all runs and marks all nodes as lost. Only for a caller that knows that no agent and no process is left.
    pub async fn clear(&self) -> Result<(), CallError> {
        let (runs, nodes) = self
            .read(|state| {
                let going = state.runs().into_iter().filter(|run| !run.state.status.is_final());
                let there = state.nodes().filter(|node| node.presence.may_run());
                (going.map(|run| run.id().clone()).collect::<Vec<_>>(), there.cloned().collect::<Vec<_>>())
            })
            .await?;
        for run in runs {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).map_err(|_| CallError::Entropy)?;
            self.cancel(RequestId::from_bytes(bytes), run.as_str()).await?;
        }
        for node in nodes {
            let lost = Command::NodeLost(NodeLost { at_ms: now_ms(), node: node.id, incarnation: node.incarnation });
            self.propose(lost).await?.outcome().await?;
        }
        Ok(())
    }

    /// The id of the run with this id or unique prefix.
    pub async fn find_run(&self, prefix: &str) -> Result<RunId, CallError> {
        let prefix = prefix.to_owned();
        Ok(self.read(move |state| state.find_run(&prefix).map(|found| found.id().clone())).await??)
    }

    /// Runs `look` in the event loop, with the applied state, and returns its result. `look` must be short, because it blocks the event
    /// loop.
    ///
    /// For reads of clients, which have a lower priority than commands and requests of agents.
    pub async fn read<T, F>(&self, look: F) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: FnOnce(&ClusterState) -> T + Send + 'static,
    {
        self.read_by(&self.reads, look).await
    }

    /// As [`Handle::read`], for the coordinator's own tasks: with the priority of commands.
    pub(crate) async fn read_first<T, F>(&self, look: F) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: FnOnce(&ClusterState) -> T + Send + 'static,
    {
        self.read_by(&self.requests, look).await
    }

    async fn read_by<T, F>(&self, queue: &mpsc::Sender<Request>, look: F) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: FnOnce(&ClusterState) -> T + Send + 'static,
    {
        let (seen, answer) = oneshot::channel();
        let read = Box::new(move |state: &ClusterState| {
            // An error means that the caller has given up.
            let _ = seen.send(look(state));
        });
        queue.send(Request::Read(read)).await.map_err(|_| CallError::Stopping)?;
        answer.await.map_err(|_| CallError::Stopping)
    }

    /// The runs and nodes that changed after log index `index`. Changes before the coordinator's start are not included.
    pub async fn changes_since(&self, index: u64) -> Result<ChangesSince, CallError> {
        let (told, answer) = oneshot::channel();
        self.reads.send(Request::ChangesSince(index, told)).await.map_err(|_| CallError::Stopping)?;
        answer.await.map_err(|_| CallError::Stopping)
    }

    /// Applied log index. It includes every command whose outcome was returned.
    pub fn applied(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Notifies of changes of the state after this call.
    pub fn changes(&self) -> Changes {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        Changes(changes)
    }

    /// Reads the log of a process from its node's agent. The event loop sets `request.id`.
    pub async fn read_log(&self, node: NodeId, request: LogRequest) -> Result<LogReply, CallError> {
        let (read, answer) = oneshot::channel();
        let asked = Request::ReadLog(node.clone(), request, read);
        self.reads.send(asked).await.map_err(|_| CallError::Stopping)?;
        answer.await.map_err(|_| CallError::NotConnected(node))?
    }

    /// The assignment of a generation of a run. `None` if `node` has no process in it, or if a newer generation exists.
    pub(super) async fn assignment(
        &self,
        node: NodeId,
        run: RunId,
        generation: u64,
    ) -> Result<Option<Assignment>, CallError> {
        let of_node = move |state: &ClusterState| {
            let run = state.run(&run).filter(|run| run.state.generation == generation)?;
            desired(run).contains_key(&node).then(|| assignment(run))
        };
        self.read_first(of_node).await
    }

    /// Queues a report of a process. Commands of one caller are applied in the order of its calls.
    pub(super) async fn report(&self, report: Report, from: Messenger) -> Result<Pending, CallError> {
        let Report { run, generation, process, sequence, body } = report;
        let (at_ms, from) = (now_ms(), Some(from));
        self.propose(Command::Report(command::Report { at_ms, run, generation, process, sequence, from, body })).await
    }

    /// Restarts the node's lease now, without waiting for the event loop.
    pub(super) fn heard(&self, node: &NodeId) {
        self.leases.heard(node, Instant::now());
    }

    pub(super) async fn leaving(&self, from: Messenger) -> Result<(), CallError> {
        let Messenger { node, incarnation } = from;
        // The outcome is not awaited: the command is already ahead of the node's next reports in the queue.
        self.propose(Command::NodeLeaving(NodeLeaving { at_ms: now_ms(), node, incarnation })).await.map(|_| ())
    }

    pub(super) async fn log_read(&self, node: NodeId, reply: LogReply) -> Result<(), CallError> {
        self.send(Request::LogRead(node, reply)).await
    }

    async fn run(&self, command: Command) -> Result<RunId, CallError> {
        match self.propose(command).await?.outcome().await? {
            Outcome::Run(run) => Ok(run),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Done => unreachable!("a command that creates a run returns the run or a refusal"),
        }
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<Pending, CallError> {
        let (reply, outcome) = oneshot::channel();
        self.send(Request::Propose(Box::new(command), reply)).await?;
        Ok(Pending::new(outcome))
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), CallError> {
        self.requests.send(request).await.map_err(|_| CallError::Stopping)
    }
}

/// Milliseconds since the Unix epoch; 0 if the system's clock is before it.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn secret() -> Result<[u8; 32], CallError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| CallError::Entropy)?;
    Ok(bytes)
}
