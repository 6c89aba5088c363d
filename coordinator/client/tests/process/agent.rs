//! A simulated agent without processes. Tests send each message of the agent and of its rank processes.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use lockstep_common::manifest::{self, Piece, RankState, RecordPosition, Share, TensorEntry};
use lockstep_common::record::chain_start;
use lockstep_common::{Digest, Domain};
use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::agents_client::AgentsClient;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{
    AgentMessage, Assignment, AssignmentRequest, CheckpointShare, CoordinatorMessage, DesiredProcess, DesiredRun,
    Device, EncodedBlock, Finished, Heartbeat, Hello, LogRequest, PROTOCOL, ProcessMessage, Ready, Report, ReportBlock,
    Save, StepReport, StoreSeen, Welcome,
};
use lockstep_store::BlobStore;
use lockstep_store::shared::{Answer, answer};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::support::{Coordinator, DEADLINE, write_job};

/// Run, generation and index of a process.
pub(crate) type Process = (String, u64, u32);

/// A process that the node should run, with its assignment, peers and checkpoint orders.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    assignment: Assignment,
    /// Addresses of all processes; empty until all are ready.
    pub(crate) peers: Vec<String>,
    pub(crate) save: Save,
}

impl Deref for Assigned {
    type Target = Assignment;

    fn deref(&self) -> &Assignment {
        &self.assignment
    }
}

pub(crate) struct Agent {
    say: mpsc::Sender<AgentMessage>,
    told: Streaming<CoordinatorMessage>,
    pub(crate) welcome: Welcome,
    /// All processes that the node should run; `None` until all their assignments are there.
    pub(crate) desired: Option<Vec<Assigned>>,
    runs: Vec<DesiredRun>,
    assignments: BTreeMap<(String, u64), Option<Assignment>>,
    peers: BTreeMap<(String, u64), Vec<String>>,
    pub(crate) num_desired: usize,
    pub(crate) acknowledged: BTreeMap<Process, u64>,
    pub(crate) log_requests: Vec<LogRequest>,
    /// The highest log index that an acknowledgement named.
    pub(crate) applied: u64,
    _answer: Option<Answer>,
}

pub(crate) fn hello(node: &str, incarnation: &str, slots: usize) -> Hello {
    let slot = Device { name: "cpu".into(), model: "test".into(), memory_bytes: 1 << 30 };
    Hello {
        node: node.into(),
        incarnation: incarnation.into(),
        host: "test".into(),
        devices: vec![slot; slots],
        version: "0".into(),
        protocol: PROTOCOL,
        ..Hello::default()
    }
}

impl Agent {
    /// Opens a stream whose first message is `first`.
    pub(crate) async fn open(address: &str, first: Say) -> Result<Self, Status> {
        let seeing = |welcome: &Welcome| {
            let store = Path::new(&welcome.store);
            let answer = answer(store, &welcome.check, "seen").expect("it shares the store");
            (
                StoreSeen {
                    found: answer.found.clone(),
                    wrote: "seen".into(),
                    path: "/a/store".into(),
                    ..StoreSeen::default()
                },
                Some(answer),
            )
        };
        Self::open_seeing(address, first, seeing).await
    }

    /// As [`Self::open`]; `see` returns what the node sees of the store.
    pub(crate) async fn open_seeing(
        address: &str,
        first: Say,
        see: impl FnOnce(&Welcome) -> (StoreSeen, Option<Answer>),
    ) -> Result<Self, Status> {
        let mut client = AgentsClient::connect(format!("http://{address}")).await.expect("a coordinator listens");
        let (say, messages) = mpsc::channel(64);
        say.send(AgentMessage { body: Some(first) }).await.expect("open");
        let attach = client.attach(ReceiverStream::new(messages));
        let mut told = timeout(DEADLINE, attach).await.expect("an answer in time")?.into_inner();
        let welcome = timeout(DEADLINE, told.message()).await.expect("a welcome in time")?;
        let Some(Told::Welcome(welcome)) = welcome.and_then(|message| message.body) else {
            panic!("the first message is not a welcome")
        };
        let (seen, answer) = see(&welcome);
        say.send(AgentMessage { body: Some(Say::Store(seen)) }).await.expect("open");
        let (acknowledged, log_requests) = (BTreeMap::new(), Vec::new());
        Ok(Self {
            say,
            told,
            welcome,
            desired: None,
            runs: Vec::new(),
            assignments: BTreeMap::new(),
            peers: BTreeMap::new(),
            num_desired: 0,
            acknowledged,
            log_requests,
            applied: 0,
            _answer: answer,
        })
    }

    pub(crate) async fn attach(address: &str, node: &str, incarnation: &str, slots: usize) -> Self {
        Self::open(address, Say::Hello(hello(node, incarnation, slots))).await.expect("welcome")
    }

    /// Joins as `node-a` with one process that is ready for a run of `steps` steps. Returns also the run and the process.
    pub(crate) async fn ready(coordinator: &Coordinator, dir: &Path, steps: u64) -> (Self, String, Process) {
        let mut agent = Self::attach(&coordinator.address, "node-a", "1", 1).await;
        let run = coordinator.submit(&write_job(dir, 1, steps));
        agent.until_desired("the process", |assigned| assigned.len() == 1).await;
        let process = (run.clone(), 1, 0);
        agent.tell(&process, 1, ready(0)).await;
        (agent, run, process)
    }

    /// As [`Self::ready`], after it has reported all four steps of its run.
    pub(crate) async fn trained(coordinator: &Coordinator, dir: &Path) -> (Self, String, Process) {
        let (mut agent, run, process) = Self::ready(coordinator, dir, 4).await;
        agent.tell(&process, 2, block(1..=4, 1)).await;
        (agent, run, process)
    }

    pub(crate) async fn say(&self, body: Say) {
        self.say.send(AgentMessage { body: Some(body) }).await.expect("the stream is open");
    }

    pub(crate) async fn beat(&self) {
        self.say(Say::Heartbeat(Heartbeat {})).await;
    }

    /// Receives one message, or the status with which the stream has ended.
    pub(crate) async fn listen(&mut self) -> Result<(), Status> {
        let message = timeout(DEADLINE, self.told.message()).await.expect("a message in time")?;
        match message.and_then(|message| message.body) {
            Some(Told::Desired(desired)) => {
                self.runs = desired.runs;
                self.num_desired += 1;
                self.fetch().await;
                self.put_together();
            }
            Some(Told::Assignment(assignment)) => {
                self.assignments.insert((assignment.run.clone(), assignment.generation), Some(assignment));
                self.put_together();
            }
            Some(Told::Peers(peers)) => {
                let before = self.peers.insert((peers.run, peers.generation), peers.addresses);
                assert!(before.is_none(), "once in a generation and stream");
                self.put_together();
            }
            Some(Told::Acknowledged(ack)) => {
                self.applied = self.applied.max(ack.applied);
                let before = self.acknowledged.insert((ack.run, ack.generation, ack.process), ack.sequence);
                assert!(before.is_none_or(|before| before <= ack.sequence), "acknowledgements are cumulative");
            }
            Some(Told::Log(request)) => self.log_requests.push(request),
            other => panic!("unexpected: {other:?}"),
        }
        Ok(())
    }

    /// Asks for each assignment once.
    async fn fetch(&mut self) {
        for DesiredRun { run, generation, .. } in self.runs.clone() {
            if !self.assignments.contains_key(&(run.clone(), generation)) {
                self.say(Say::Fetch(AssignmentRequest { run: run.clone(), generation })).await;
                self.assignments.insert((run, generation), None);
            }
        }
    }

    fn put_together(&mut self) {
        let of_run = |run: &DesiredRun| {
            let of = (run.run.clone(), run.generation);
            let whole = self.assignments.get(&of)?.clone()?;
            let (peers, save) = (self.peers.get(&of).cloned().unwrap_or_default(), run.save.unwrap_or_default());
            let process = |one: &DesiredProcess| {
                let assignment = Assignment { process: one.process, device: one.device.clone(), ..whole.clone() };
                Assigned { assignment, peers: peers.clone(), save }
            };
            Some(run.processes.iter().map(process).collect::<Vec<_>>())
        };
        if let Some(all) = self.runs.iter().map(of_run).collect::<Option<Vec<_>>>() {
            self.desired = Some(all.concat());
        }
    }

    /// Receives messages until `seen` is true.
    pub(crate) async fn until(&mut self, what: &str, seen: impl Fn(&Self) -> bool) {
        let listening = async {
            while !seen(self) {
                self.listen().await.expect("the stream is open");
            }
        };
        timeout(DEADLINE, listening).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    /// Receives messages until `fits` is true for the desired processes, and returns them.
    pub(crate) async fn until_desired(&mut self, what: &str, fits: impl Fn(&[Assigned]) -> bool) -> Vec<Assigned> {
        self.until(what, |agent| agent.desired.as_ref().is_some_and(|desired| fits(desired))).await;
        self.desired.clone().expect("just seen")
    }

    /// Writes the blobs of a share of `process`, and returns its message.
    pub(crate) fn share(&self, step: u64, process: u32) -> Said {
        share(&BlobStore::existing(Path::new(&self.welcome.store)).expect("a store"), step, process)
    }

    /// Reports without waiting for the acknowledgement.
    pub(crate) async fn report(&self, process: &Process, sequence: u64, body: Said) {
        let (run, generation, process) = process.clone();
        let message = Some(ProcessMessage { body: Some(body) });
        self.say(Say::Report(Report { run, generation, process, sequence, message })).await;
    }

    /// Reports, and waits for the acknowledgement.
    pub(crate) async fn tell(&mut self, process: &Process, sequence: u64, body: Said) {
        self.report(process, sequence, body).await;
        self.until_acknowledged(process, sequence).await;
    }

    pub(crate) async fn until_acknowledged(&mut self, process: &Process, sequence: u64) {
        let what = format!("acknowledgement of {process:?} {sequence}");
        self.until(&what, |agent| agent.acknowledged.get(process).is_some_and(|&up_to| up_to >= sequence)).await;
    }
}

/// `Ready` of a process that listens at a made-up address.
pub(crate) fn ready(process: u32) -> Said {
    let numerics = [("threads".to_owned(), "1".to_owned())].into();
    Said::Ready(Ready { address: format!("127.0.0.1:{}", 9_000 + process), numerics, environment: [].into() })
}

/// A block with the record of these steps; `salt` goes into the loss.
pub(crate) fn block(steps: std::ops::RangeInclusive<u64>, salt: u64) -> Said {
    Said::Block(EncodedBlock::of(reports(steps, salt)))
}

/// The reports in [`block`].
pub(crate) fn reports(steps: std::ops::RangeInclusive<u64>, salt: u64) -> ReportBlock {
    let step = |step| StepReport {
        step,
        loss: loss(step, salt).to_bits(),
        grad_norm: 1.0_f64.to_bits(),
        lr: 0.1_f64.to_bits(),
        micros: 1_000,
        ..StepReport::default()
    };
    ReportBlock { steps: steps.map(step).collect(), ..ReportBlock::default() }
}

/// The loss that `block` reports.
pub(crate) fn loss(step: u64, salt: u64) -> f64 {
    (salt * 1_000 + step) as f64
}

fn content(step: u64, process: u32) -> [u8; 4] {
    [step as u8, process as u8, 0, 0]
}

fn tensor(step: u64, process: u32) -> TensorEntry {
    let content = content(step, process);
    TensorEntry {
        name: format!("model/w{process}"),
        dtype: "float".into(),
        shape: vec![1],
        pieces: vec![Piece { digest: Domain::Blob.digest(&content), bytes: content.len() as u64 }],
    }
}

/// The share of `process`, which hosts the rank of the same number; its blobs are in `store`.
fn share(store: &BlobStore, step: u64, process: u32) -> Said {
    let tensor = tensor(step, process);
    let piece = store.put(&content(step, process)).expect("the store takes it");
    assert_eq!(tensor.pieces, std::slice::from_ref(&piece));
    let rank = RankState {
        rank: process,
        seeds: [("forward".to_owned(), 7)].into(),
        epoch: 0,
        consumed: step,
        next_position: step,
        generators: [("cpu".to_owned(), piece)].into(),
    };
    let record = (process == 0).then(|| RecordPosition { steps: step, digest: chain_start() });
    let share = Share { step, epoch: 0, tensors: vec![tensor], ranks: vec![rank], record, preprocessing: None };
    said(step, &store.put(&share.encode()).expect("the store takes it"))
}

/// The message of a process whose share is described by this blob.
pub(crate) fn said(step: u64, share: &Piece) -> Said {
    Said::Share(CheckpointShare { step, blob: Some(share.into()) })
}

/// The message of one of `processes` processes that has finished with step `step`.
pub(crate) fn finished(step: u64, processes: u32) -> Said {
    Said::Finished(Finished { step, state: final_state(step, processes).as_bytes().to_vec() })
}

/// The path of the blob in process 0's share of the checkpoint at `step`, for a coordinator with the data directory `state`.
pub(crate) fn blob(state: &Path, step: u64) -> PathBuf {
    let name = Domain::Blob.digest(&content(step, 0)).to_hex();
    state.join("store").join(&name[..2]).join(name)
}

/// The state digest of `processes` processes at step `step`, as in their shares.
pub(crate) fn final_state(step: u64, processes: u32) -> Digest {
    let tensors: Vec<_> = (0..processes).map(|process| tensor(step, process)).collect();
    manifest::state_digest(&tensors)
}
