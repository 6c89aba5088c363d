//! The stream of one attached agent.
//!
//! Reports are queued in the order of arrival, and acknowledged once they are applied. While [`OPEN_REPORTS`] reports are unacknowledged,
//! the stream is not read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_common::RunId;
use lockstep_core::replica::ProposeError;
use lockstep_core::{self as core, DesiredRun, Outcome, Refusal, ReportBody};
use lockstep_rpc::agent_message::Body;
use lockstep_rpc::coordinator_message;
use lockstep_rpc::{
    Acknowledged, AgentMessage, Assignment, AssignmentRequest, CoordinatorMessage, Desired, DesiredProcess, Peers,
    Replay, Report as WireReport, Restore, Save,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::convert::{Asked, invalid, run_id, said};
use super::terms::Terms;
use crate::node::{self, CallError, Event, Pending, Report, Session};

/// Maximum number of unapplied reports of one agent. Enough for many reports to share one disk write; bounds memory, because a report can
/// have megabytes.
const OPEN_REPORTS: usize = 64;

/// A process of a generation of a run.
type Process = (RunId, u64, u32);

pub(super) struct Conversation {
    session: Session,
    incoming: Streaming<AgentMessage>,
    outgoing: mpsc::Sender<Result<CoordinatorMessage, Status>>,
    terms: Terms,
    /// Unapplied reports with their sequence numbers, oldest first.
    open: VecDeque<(Process, u64, Pending)>,
    /// Batch size and steps of the node's desired runs, against which reports are checked.
    jobs: BTreeMap<RunId, Asked>,
    /// Generations whose peers were sent to the node.
    met: BTreeSet<(RunId, u64)>,
}

enum End {
    /// The agent has closed its side, or the connection is lost.
    Gone,
    /// The coordinator ends the stream with this status.
    Told(Status),
}

impl Conversation {
    pub(super) fn new(
        session: Session,
        incoming: Streaming<AgentMessage>,
        outgoing: mpsc::Sender<Result<CoordinatorMessage, Status>>,
        terms: Terms,
    ) -> Self {
        let (jobs, met) = (BTreeMap::new(), BTreeSet::new());
        Self { session, incoming, outgoing, terms, open: VecDeque::new(), jobs, met }
    }

    /// Serves the stream until one side ends it.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        let node = self.session.node().clone();
        let end = self.talk(stop).await;
        match end {
            End::Gone => info!(%node, "node detached"),
            End::Told(status) => {
                warn!(%node, reason = status.message(), "ended a node's stream");
                // An error means that the agent is gone.
                let _ = self.outgoing.send(Err(status)).await;
            }
        }
    }

    async fn talk(&mut self, stop: &CancellationToken) -> End {
        loop {
            // Order: shutdown; messages to the node; acknowledgements; messages from the node, because reading creates new work.
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => Err(End::Told(CallError::Stopping.into())),
                event = self.session.next() => self.on_event(event).await,
                outcome = front(&mut self.open) => self.on_applied(outcome).await,
                message = self.incoming.message(), if self.open.len() < OPEN_REPORTS => self.on_message(message).await,
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    async fn tell(&self, body: coordinator_message::Body) -> Result<(), End> {
        self.outgoing.send(Ok(CoordinatorMessage { body: Some(body) })).await.map_err(|_| End::Gone)
    }

    async fn on_event(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Desired(runs) => self.on_desired(&runs).await,
            Event::Log(request) => self.tell(coordinator_message::Body::Log(request)).await,
            Event::Closed => Err(End::Told(Status::aborted(
                "the node's lease expired, or a newer stream of the same node replaced this one",
            ))),
        }
    }

    /// The oldest report was applied: acknowledges it and the applied reports after it, with one message per process.
    async fn on_applied(&mut self, first: Result<Outcome, CallError>) -> Result<(), End> {
        let mut acknowledged = BTreeMap::new();
        let mut outcome = Some(first);
        let mut refused = None;
        while let Some(result) = outcome.take() {
            let Some((process, sequence, _)) = self.open.pop_front() else { break };
            match result {
                Ok(Outcome::Done | Outcome::Run(_)) => {}
                // A retry would be refused, too, so the report is acknowledged, and the agent drops it.
                Ok(Outcome::Refused(
                    refusal @ (Refusal::NoRun(_)
                    | Refusal::NoProcess { .. }
                    | Refusal::NotItsAgent { .. }
                    | Refusal::Ended { .. }),
                )) => {
                    warn!(node = %self.session.node(), %refusal, "dropped a report");
                }
                Ok(Outcome::Refused(refusal)) => {
                    refused = Some(CallError::Refused(refusal));
                    break;
                }
                Err(CallError::Propose(error @ ProposeError::TooLarge { .. })) => {
                    warn!(node = %self.session.node(), run = %process.0, %error, "dropped a report");
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
            acknowledged.insert(process, sequence);
            outcome = self.open.front_mut().and_then(|(_, _, pending)| pending.now());
        }
        for ((run, generation, process), sequence) in acknowledged {
            let applied = self.session.applied();
            let acknowledged = Acknowledged { run: run.into(), generation, process, sequence, applied };
            self.tell(coordinator_message::Body::Acknowledged(acknowledged)).await?;
        }
        refused.map_or(Ok(()), |error| Err(End::Told(error.into())))
    }

    /// Sends the desired state, and once per generation the addresses of its processes.
    async fn on_desired(&mut self, runs: &node::Desired) -> Result<(), End> {
        self.jobs = runs.iter().map(|(id, run)| (id.clone(), Asked { batch: run.batch, steps: run.steps })).collect();
        let desired = runs.iter().map(|(id, run)| desired(id, &run.desired)).collect();
        self.tell(coordinator_message::Body::Desired(Desired { runs: desired })).await?;
        self.met.retain(|(id, generation)| runs.get(id).is_some_and(|run| run.desired.generation == *generation));
        for (id, run) in runs {
            let generation = run.desired.generation;
            if let Some(peers) = &run.peers
                && self.met.insert((id.clone(), generation))
            {
                let peers = Peers { run: id.to_string(), generation, addresses: peers.to_vec() };
                self.tell(coordinator_message::Body::Peers(peers)).await?;
            }
        }
        Ok(())
    }

    /// Sends the assignment of a generation. A node without a process in it gets no answer.
    async fn on_fetch(&mut self, asked: AssignmentRequest) -> Result<(), End> {
        let run = run_id(&asked.run).map_err(End::Told)?;
        let found = self.session.assignment(run, asked.generation).await.map_err(|error| End::Told(error.into()))?;
        let Some(found) = found else { return Ok(()) };
        let assignment = assignment(found, self.terms.store.display().to_string());
        self.tell(coordinator_message::Body::Assignment(assignment)).await
    }

    async fn on_message(&mut self, message: Result<Option<AgentMessage>, Status>) -> Result<(), End> {
        let body = match message {
            Ok(Some(message)) => message.body,
            Ok(None) | Err(_) => return Err(End::Gone),
        };
        let stopped = |error: CallError| End::Told(error.into());
        self.session.heard();
        match body {
            Some(Body::Report(report)) => self.on_report(report).await,
            Some(Body::Log(reply)) => self.session.log_read(reply).await.map_err(stopped),
            Some(Body::Hello(_) | Body::Store(_)) => {
                Err(End::Told(invalid("body", "`hello` and `store` are only valid at the start of the stream")))
            }
            Some(Body::Leaving(_)) => self.session.leaving().await.map_err(stopped),
            Some(Body::Fetch(asked)) => self.on_fetch(asked).await,
            Some(Body::Heartbeat(_)) | None => Ok(()),
        }
    }

    async fn on_report(&mut self, wire: WireReport) -> Result<(), End> {
        let run = run_id(&wire.run).map_err(End::Told)?;
        // An invalid report fails its run. If it ended the stream, the agent would send it again after each reconnect.
        let body = said(wire.message, wire.process, self.jobs.get(&run).copied()).unwrap_or_else(|status| {
            let reason = format!("the coordinator rejected its report: {}", status.message());
            warn!(node = %self.session.node(), %run, reason);
            ReportBody::Failed { reason, transient: false }
        });
        let WireReport { generation, process, sequence, .. } = wire;
        let report = Report { run: run.clone(), generation, process, sequence, body };
        let pending = self.session.report(report).await.map_err(|error| End::Told(error.into()))?;
        self.open.push_back(((run, generation, process), sequence, pending));
        Ok(())
    }
}

/// Waits for the outcome of the oldest open report. Never resolves if there is none.
async fn front(open: &mut VecDeque<(Process, u64, Pending)>) -> Result<Outcome, CallError> {
    match open.front_mut() {
        Some((_, _, pending)) => pending.wait().await,
        None => std::future::pending().await,
    }
}

fn desired(id: &RunId, run: &DesiredRun) -> lockstep_rpc::DesiredRun {
    let core::Save { committed, attempt, given_up } = run.save;
    let process = |(&process, device): (&u32, &String)| DesiredProcess { process, device: device.clone() };
    lockstep_rpc::DesiredRun {
        run: id.to_string(),
        generation: run.generation,
        processes: run.processes.iter().map(process).collect(),
        save: Some(Save { committed, attempt, given_up }),
    }
}

fn assignment(found: core::Assignment, store: String) -> Assignment {
    Assignment {
        run: found.run.into(),
        generation: found.generation,
        process: 0,
        processes: found.processes,
        device: String::new(),
        job: found.job.into_bytes(),
        base_dir: found.base_dir,
        store,
        code: found.code.as_ref().map(Into::into),
        data: found.data.iter().map(Into::into).collect(),
        restore: found.restore.map(|restore| Restore {
            checkpoint: restore.checkpoint.as_bytes().to_vec(),
            manifest: Some((&restore.manifest).into()),
        }),
        secret: found.secret.to_vec(),
        judge_at: found.judge_at,
        replay: found.replay.map(|replay| Replay {
            of: replay.of.into(),
            until: replay.until,
            fingerprints_every: replay.fingerprints_every,
        }),
    }
}
