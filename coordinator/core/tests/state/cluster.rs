//! A state with shorthands for commands. After each command, its changed rows are added to a store, which must then equal the state. So any
//! test fails that changes a row without marking it as changed.

use std::collections::BTreeMap;
use std::ops::Deref;

use lockstep_common::manifest::{self, Share};
use lockstep_common::manifest::{CodeVersion, DataFile, Manifest, Piece, RankState, RecordPosition, TensorEntry};
use lockstep_common::record::chain_start;
use lockstep_common::{Digest, Domain, RequestId, RunId, job, world};
use lockstep_core::command::{
    Cancel, Commit, CommitFailed, MadeOf, Messenger, NodeDetached, NodeJoined, NodeLeaving, NodeLost, Report, Resume,
    Submit,
};
use lockstep_core::desired::{assignment, desired, peers};
use lockstep_core::state::{Device, Progress};
use lockstep_core::state::{Run, Status, Written};
use lockstep_core::{
    Applied, Assignment, ClusterState, Command, DesiredRun, Effect, Outcome, Refusal, ReportBody, Save,
};

use crate::blobs;
pub(crate) use crate::blobs::{get, put};

pub(crate) const JOB: &str = r#"
    name = "t"
    steps = 10
    ranks = 4
    world = { processes = 2, min_processes = 2 }
    batch = { size = 8 }
    model = { kind = "mlp", hidden = [8], outputs = 2 }
    data = { kind = "csv", path = "x.csv", target = "y" }
    optimizer = { kind = "sgd", lr = 0.1 }
    checkpoint = { every_steps = 1 }
"#;

#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) state: ClusterState,
    pub(crate) effects: Vec<Effect>,
    index: u64,
    store: BTreeMap<String, Vec<u8>>,
}

/// A process in the desired state of a node, with its assignment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assigned {
    assignment: Assignment,
    pub(crate) process: u32,
    pub(crate) device: String,
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

/// The report of a process that has written `share`.
pub(crate) fn written(share: &Share) -> ReportBody {
    ReportBody::Share { step: share.step, blob: put(&share.encode()) }
}

pub(crate) fn text(words: &[(&str, &str)]) -> BTreeMap<String, String> {
    words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn job_text(sets: &[&str]) -> String {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    String::from_utf8(job::parse_toml(JOB, &sets).unwrap().canonical()).unwrap()
}

pub(crate) fn devices(names: &[&str]) -> Vec<Device> {
    let device = |name: &&str| Device { name: (*name).to_owned(), model: "test".to_owned(), memory_bytes: 1 << 30 };
    names.iter().map(device).collect()
}

pub(crate) fn ready(process: u32, cpu: &str) -> ReportBody {
    ReportBody::Ready {
        address: format!("127.0.0.1:{}", 9000 + process),
        numerics: text(&[("cpu", cpu), ("threads", "1")]),
        environment: text(&[("libtorch", "2.13.0")]),
    }
}

pub(crate) fn block(step: u64) -> ReportBody {
    let progress =
        Progress { step, loss: 1.5_f64.to_bits(), grad_norm: 0.5_f64.to_bits(), samples_per_second: f64::NAN };
    ReportBody::Block { progress: Some(progress), bytes: vec![step as u8] }
}

/// Digest of the state in the shares of two processes at the last step.
pub(crate) fn final_state() -> Digest {
    let tensors: Vec<_> = (0..2).flat_map(|process| share(process, 2, 10).tensors).collect();
    manifest::state_digest(&tensors)
}

/// Digest of a state that is in no checkpoint.
pub(crate) fn other_state() -> Digest {
    Domain::State.digest(b"other")
}

/// The share of `process` of the checkpoint at `step`, for a job of 4 ranks.
pub(crate) fn share(process: u32, processes: u32, step: u64) -> Share {
    let content = [process.to_le_bytes(), (step as u32).to_le_bytes()].concat();
    let tensor = TensorEntry {
        name: format!("model/w{process}"),
        dtype: "float".to_owned(),
        shape: vec![2],
        pieces: vec![Piece { digest: Domain::Blob.digest(&content), bytes: 8 }],
    };
    let rank = |rank| RankState {
        rank,
        seeds: BTreeMap::new(),
        epoch: 0,
        consumed: 2 * step,
        next_position: 8 * step,
        generators: BTreeMap::new(),
    };
    Share {
        step,
        epoch: 0,
        tensors: vec![tensor],
        ranks: world::hosted(process, processes, 4).map(rank).collect(),
        record: (process == 0).then(|| RecordPosition { steps: step, digest: chain_start() }),
        preprocessing: None,
    }
}

/// The command that a leader proposes after it has read the shares of a written checkpoint.
pub(crate) fn opened(at_ms: u64, (run, generation, step): (RunId, u64, u64), written: &Written) -> Command {
    let share = |blob: &Piece| Share::decode(&get(blob)).unwrap();
    let shares = written.shares.iter().map(|(process, blob)| (*process, share(blob))).collect();
    let earlier = written.earlier.as_ref().map(blobs::manifest);
    match written.assemble(&shares, earlier.as_ref()) {
        Ok(manifest) => {
            let (bytes, shares) = (manifest.encode(), written.shares_digest());
            let (checkpoint, epoch, state) = (Manifest::id(&bytes), manifest.epoch, manifest.state);
            let manifest = put(&bytes);
            Command::Commit(Commit { at_ms, run, generation, step, checkpoint, manifest, epoch, state, shares })
        }
        Err(reason) => Command::CommitFailed(CommitFailed { at_ms, run, generation, step, reason }),
    }
}

impl Cluster {
    /// Two nodes with two CPU slots each.
    pub(crate) fn with_two_nodes() -> Self {
        let mut cluster = Self::default();
        cluster.join("a", "1", &["cpu", "cpu"]);
        cluster.join("b", "1", &["cpu", "cpu"]);
        cluster
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let Applied { outcome, effects } = self.state.apply(self.index, command);
        self.effects.extend(effects);
        for (key, value) in self.state.take_changes() {
            match value {
                Some(value) => self.store.insert(key, value),
                None => self.store.remove(&key),
            };
        }
        let store: Vec<_> = self.store.clone().into_iter().collect();
        let mut rows = self.state.rows();
        rows.sort();
        assert_eq!(store, rows, "after {command:?}");
        outcome
    }

    pub(crate) fn now(&self) -> u64 {
        1000 * (self.index + 1)
    }

    pub(crate) fn request(&self) -> RequestId {
        RequestId::from_bytes((u128::from(self.index) + 1).to_be_bytes())
    }

    pub(crate) fn join(&mut self, node: &str, incarnation: &str, names: &[&str]) {
        let command = Command::NodeJoined(NodeJoined {
            at_ms: self.now(),
            node: node.parse().unwrap(),
            incarnation: incarnation.to_owned(),
            agent: format!("agent of {node}"),
            host: format!("{node}.example"),
            devices: devices(names),
        });
        assert_eq!(self.apply(&command), Outcome::Done);
    }

    pub(crate) fn lose(&mut self, node: &str, incarnation: &str) {
        let node = node.parse().unwrap();
        let command = Command::NodeLost(NodeLost { at_ms: self.now(), node, incarnation: incarnation.to_owned() });
        assert_eq!(self.apply(&command), Outcome::Done);
    }

    /// The node's stream ends; if `earlier`, a stream before the present one.
    pub(crate) fn detach(&mut self, node: &str, earlier: bool) {
        let (at_ms, node) = (self.now(), node.parse().unwrap());
        let joined = self.state.node(&node).map_or(0, |node| node.joined - u64::from(earlier));
        assert_eq!(self.apply(&Command::NodeDetached(NodeDetached { at_ms, node, joined })), Outcome::Done);
    }

    pub(crate) fn leave(&mut self, node: &str, incarnation: &str) {
        let (at_ms, node, incarnation) = (self.now(), node.parse().unwrap(), incarnation.to_owned());
        assert_eq!(self.apply(&Command::NodeLeaving(NodeLeaving { at_ms, node, incarnation })), Outcome::Done);
    }

    pub(crate) fn submit_command(&self, sets: &[&str]) -> Command {
        Command::Submit(Submit {
            request: self.request(),
            at_ms: self.now(),
            job: job_text(sets),
            base_dir: "/jobs".to_owned(),
            code: None,
            data: Vec::new(),
            secret: [7; 32],
        })
    }

    pub(crate) fn submit(&mut self, sets: &[&str]) -> RunId {
        match self.apply(&self.submit_command(sets)) {
            Outcome::Run(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn resume(&mut self, checkpoint: Digest) -> Result<RunId, Refusal> {
        self.resume_with(checkpoint, &[], &[])
    }

    pub(crate) fn resume_with(
        &mut self,
        checkpoint: Digest,
        accepted: &[&str],
        data: &[DataFile],
    ) -> Result<RunId, Refusal> {
        self.resume_as(checkpoint, accepted, data, None)
    }

    pub(crate) fn resume_as(
        &mut self,
        checkpoint: Digest,
        accepted: &[&str],
        data: &[DataFile],
        code: Option<CodeVersion>,
    ) -> Result<RunId, Refusal> {
        let accepted = accepted.iter().map(|key| (*key).to_owned()).collect();
        let (request, at_ms, data, secret) = (self.request(), self.now(), data.to_vec(), [8; 32]);
        let made_of = Box::new(self.manifest(&checkpoint).into());
        let base_dir = None;
        self.start(&Resume { request, at_ms, checkpoint, made_of, accepted, base_dir, data, code, secret })
    }

    pub(crate) fn resume_of(&mut self, checkpoint: Digest, made_of: MadeOf) -> Result<RunId, Refusal> {
        let (request, at_ms, accepted, base_dir, data, code, secret) =
            (self.request(), self.now(), Vec::new(), None, Vec::new(), None, [8; 32]);
        let made_of = Box::new(made_of);
        self.start(&Resume { request, at_ms, checkpoint, made_of, accepted, base_dir, data, code, secret })
    }

    fn start(&mut self, resume: &Resume) -> Result<RunId, Refusal> {
        match self.apply(&Command::Resume(resume.clone())) {
            Outcome::Run(id) => Ok(id),
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Done => panic!("a resume makes a run"),
        }
    }

    pub(crate) fn cancel(&mut self, run: &RunId) -> Outcome {
        self.apply(&Command::Cancel(Cancel { request: self.request(), at_ms: self.now(), run: run.clone() }))
    }

    /// A report, sent by the agent of the node on which the process is placed.
    pub(crate) fn report(
        &mut self,
        run: &RunId,
        generation: u64,
        process: u32,
        sequence: u64,
        body: ReportBody,
    ) -> Outcome {
        let placed = self.run(run).state.placement.get(&process);
        let node = placed.and_then(|placed| self.state.node(&placed.node));
        let from = node.map(|node| Messenger { node: node.id.clone(), incarnation: node.incarnation.clone() });
        self.report_from(run, (generation, process, sequence), from, body)
    }

    pub(crate) fn report_from(
        &mut self,
        run: &RunId,
        (generation, process, sequence): (u64, u32, u64),
        from: Option<Messenger>,
        body: ReportBody,
    ) -> Outcome {
        let at_ms = self.now();
        self.apply(&Command::Report(Report { at_ms, run: run.clone(), generation, process, sequence, from, body }))
    }

    /// The next report of a process of the current generation.
    pub(crate) fn say(&mut self, run: &RunId, process: u32, body: ReportBody) {
        let state = &self.run(run).state;
        let (generation, sequence) = (state.generation, state.placement[&process].sequence + 1);
        assert_eq!(self.report(run, generation, process, sequence, body), Outcome::Done);
    }

    pub(crate) fn all_ready(&mut self, run: &RunId) {
        for process in 0..self.run(run).state.placement.len() as u32 {
            self.say(run, process, ready(process, "avx2"));
        }
        assert_eq!(self.run(run).state.status, Status::Running);
    }

    /// All processes write their shares, and the leader opens every blob.
    pub(crate) fn checkpoint(&mut self, run: &RunId, step: u64) -> Digest {
        let processes = self.run(run).state.placement.len() as u32;
        for process in 0..processes {
            self.say(run, process, written(&share(process, processes, step)));
        }
        self.open();
        // Checkpoints of earlier steps are committed first.
        while !self.state.written().is_empty() && !self.run(run).checkpoints.contains_key(&step) {
            self.open();
        }
        self.run(run).checkpoints[&step].id
    }

    /// The commands that the leader proposes after it has opened all blobs of all written checkpoints.
    pub(crate) fn opened(&self) -> Vec<Command> {
        let commit = |(run, generation, step): (RunId, u64, u64)| {
            let written = self.state.written_at(&run, generation, step).unwrap();
            opened(self.now(), (run, generation, step), &written)
        };
        self.state.written().into_iter().map(commit).collect()
    }

    /// The leader opens all written checkpoints without an error.
    pub(crate) fn open(&mut self) {
        for command in self.opened() {
            assert_eq!(self.apply(&command), Outcome::Done);
        }
    }

    /// The leader does not find a blob of the checkpoint at `step`.
    pub(crate) fn open_in_vain(&mut self, run: &RunId, step: u64) {
        let written = self.state.written().into_iter().find(|(id, _, at)| (id, *at) == (run, step));
        let generation = written.map_or(self.run(run).state.generation, |(_, generation, _)| generation);
        let (at_ms, reason) = (self.now(), "blob `x` is missing".to_owned());
        let failed = Command::CommitFailed(CommitFailed { at_ms, run: run.clone(), generation, step, reason });
        assert_eq!(self.apply(&failed), Outcome::Done);
    }

    pub(crate) fn exit(&mut self, run: &RunId, process: u32, output: &str) {
        self.say(run, process, ReportBody::Exited { code: 137, output: output.to_owned(), ending: None });
    }

    /// The manifest of a committed checkpoint.
    pub(crate) fn manifest(&self, checkpoint: &Digest) -> Manifest {
        let bytes = get(&self.state.checkpoint(checkpoint).unwrap().1.manifest);
        assert_eq!(Manifest::id(&bytes), *checkpoint);
        Manifest::decode(&bytes).unwrap()
    }

    pub(crate) fn run(&self, id: &RunId) -> &Run {
        self.state.run(id).unwrap()
    }

    pub(crate) fn status(&self, id: &RunId) -> String {
        self.run(id).state.status.to_string()
    }

    /// The desired state of `node` with all assignments, sorted by run id and process index.
    pub(crate) fn desired(&self, node: &str) -> Vec<Assigned> {
        let node = node.parse().unwrap();
        let of_run = |run: &&Run| {
            let (assignment, peers) = (assignment(run), peers(run).unwrap_or_default());
            let DesiredRun { generation, processes, save } = desired(run).remove(&node)?;
            assert_eq!(assignment.generation, generation);
            let process = move |(process, device)| {
                let (assignment, peers) = (assignment.clone(), peers.clone());
                Assigned { assignment, process, device, peers, save }
            };
            Some(processes.into_iter().map(process))
        };
        let mut runs = self.state.runs();
        runs.sort_by_key(|run| run.id().clone());
        runs.iter().filter_map(of_run).flatten().collect()
    }

    pub(crate) fn store(&self) -> BTreeMap<String, Vec<u8>> {
        self.store.clone()
    }
}
