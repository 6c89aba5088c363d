//! Real rank processes, and what an agent and a coordinator do for them: assignments, peers, committing checkpoints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, unreachable_pub, reason = "each test program takes what it needs, and has no outside")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_common::manifest::Share;
use lockstep_common::manifest::{self, DataFile, Manifest, RecordPosition};
use lockstep_common::{Digest, RunId, numerics};
use lockstep_host::data::{Listed, hash_files};
use lockstep_rpc::agent_command::Body as CommandBody;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{
    AgentCommand, Assignment, Corrupt, Empty, EvalReport, LayerReport, ProcessMessage, Save, StepReport, SystemReport,
    frame,
};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(2);

const RUN: &str = "0123456789";

/// So many processes share one CUDA device at most.
const MOST_PROCESSES: u32 = 6;

/// A directory with data, a store, and the job that trains on it.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub job: JobSpec,
    pub data: Vec<DataFile>,
    /// More environment variables of single processes; they win over what the job asks for.
    pub variables: BTreeMap<u32, Vec<(String, String)>>,
    /// Whether gradients go over the network although all processes are here.
    pub messages: bool,
    /// Every process's, as assignments name it.
    pub device: &'static str,
    /// Whether processes inherit none of the variables that change bits.
    pub plain: bool,
}

/// What came out of a run.
#[derive(Default)]
pub struct Outcome {
    pub steps: Vec<StepReport>,
    pub layers: Vec<LayerReport>,
    pub evals: Vec<EvalReport>,
    pub systems: Vec<(u32, SystemReport)>,
    pub manifests: Vec<Manifest>,
    pub checkpoint_failures: Vec<(u64, String)>,
    /// Final states by process.
    pub states: Vec<Digest>,
    pub failures: Vec<String>,
    /// What processes say that find each other different.
    pub corrupt: Vec<Corrupt>,
    /// Exit codes by process, or 128 + signal.
    pub codes: Vec<i32>,
    pub stderr: String,
}

impl Outcome {
    /// The final state, which all processes agree on.
    pub fn state(&self) -> Digest {
        assert!(!self.states.is_empty(), "the run did not finish: {:?}\n{}", self.failures, self.stderr);
        assert!(self.states.iter().all(|state| *state == self.states[0]), "{:?}", self.states);
        self.states[0]
    }

    /// Step, loss, gradient norm, learning rate, positions and bytes of the samples, as bits.
    pub fn record(&self) -> Vec<[u64; 6]> {
        assert!(self.steps.iter().all(|step| step.contents != 0), "the samples' bytes are known");
        let words = |step: &StepReport| [step.step, step.loss, step.grad_norm, step.lr, step.positions, step.contents];
        self.steps.iter().map(words).collect()
    }

    pub fn manifest_at(&self, step: u64) -> &Manifest {
        self.manifests.iter().find(|manifest| manifest.step == step).expect("a checkpoint at that step")
    }
}

/// 50 rows of 6 numbers and a class of three, made by arithmetic.
pub fn table() -> String {
    let mut text = "a,b,c,d,e,f,class\n".to_owned();
    for row in 0..50_u64 {
        let cells: Vec<String> = (0..6)
            .map(|column| {
                let mixed = (row * 6 + column + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!("{:.4}", (mixed >> 40) as f64 / (1_u64 << 23) as f64 - 1.0 + 0.3 * (row % 3) as f64)
            })
            .collect();
        writeln!(text, "{},{}", cells.join(","), row % 3).unwrap();
    }
    text
}

impl Lab {
    /// A lab whose job is `text` with `sets`, over the files that are given by name and contents.
    pub fn new(text: &str, sets: &[&str], files: &[(&str, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A process makes no store for itself: it would be one that nobody shares.
        lockstep_host::blobs::BlobStore::open(&dir.path().join("store")).unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let job = parse(text, sets);
        let files: Vec<Listed> = job.data_paths().iter().map(|path| Listed::new(dir.path(), path)).collect();
        let data = hash_files(&files.iter().collect::<Vec<_>>(), None, &|_| ()).unwrap();
        Self { dir, job, data, variables: BTreeMap::new(), messages: false, device: "cpu", plain: false }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Another job over the same files and store.
    pub fn with(self, text: &str, sets: &[&str]) -> Self {
        Self { job: parse(text, sets), ..self }
    }

    /// The same lab, where process `process` starts with one more environment variable.
    pub fn with_variable(mut self, process: u32, name: &str, value: &str) -> Self {
        self.variables.entry(process).or_default().push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same lab, whose processes inherit none of the variables that change bits, whatever the tests are run with.
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// The same lab, whose processes share no memory, as on machines of their own.
    pub fn by_messages(self) -> Self {
        Self { messages: true, ..self }
    }

    /// The same lab on the first CUDA device, which all processes share: NCCL takes each for a machine of its own, for it
    /// refuses two processes of one machine on one device.
    pub fn on_cuda(mut self) -> Self {
        for process in 0..MOST_PROCESSES {
            let own = self.variables.entry(process).or_default();
            own.push(("NCCL_HOSTID".to_owned(), format!("machine-{process}")));
            own.push(("NCCL_SOCKET_IFNAME".to_owned(), "lo".to_owned()));
        }
        Self { device: "cuda:0", ..self }
    }

    /// The numerics fingerprints that processes say they have, by process; no step is made.
    pub fn fingerprints(&self, processes: u32) -> Vec<BTreeMap<String, String>> {
        let mut started = Processes::start(self, processes, None);
        assert!(started.all_ready(), "every process comes up");
        for process in 0..processes {
            started.kill(process as usize);
        }
        let fingerprints = std::mem::take(&mut started.fingerprints);
        started.finish(self);
        fingerprints.into_values().collect()
    }

    /// Runs the job to its end.
    pub fn run(&self, processes: u32, restore: Option<&Manifest>) -> Outcome {
        self.run_and(processes, restore, |_| {})
    }

    /// As `run`; `meanwhile` gets the processes when all are ready and before they start.
    pub fn run_and(
        &self,
        processes: u32,
        restore: Option<&Manifest>,
        meanwhile: impl FnOnce(&mut Processes),
    ) -> Outcome {
        let mut started = Processes::start(self, processes, restore);
        if started.all_ready() {
            for (process, numerics) in &started.fingerprints {
                assert_eq!(*numerics, started.numerics, "numerics of process {process}");
            }
            meanwhile(&mut started);
            started.tell_peers();
        }
        started.finish(self)
    }

    fn assignment(&self, process: u32, processes: u32, restore: Option<&Manifest>) -> Assignment {
        Assignment {
            run: RUN.to_owned(),
            generation: 1,
            process,
            processes,
            device: self.device.to_owned(),
            job: self.job.canonical(),
            base_dir: self.dir.path().to_str().unwrap().to_owned(),
            store: self.store().to_str().unwrap().to_owned(),
            data: self.data.iter().map(Into::into).collect(),
            restore: restore.map(Manifest::encode).unwrap_or_default(),
            secret: vec![5; 32],
            peers: Vec::new(),
            replay: None,
            judge_at: Vec::new(),
            code: None,
            save: None,
        }
    }
}

pub fn parse(text: &str, sets: &[&str]) -> JobSpec {
    parse_toml(text, &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>()).unwrap()
}

#[expect(clippy::large_enum_variant, reason = "few are under way")]
enum Heard {
    Said(u32, Body),
    HungUp(u32),
}

/// Rank processes under way.
pub struct Processes {
    children: Vec<Child>,
    streams: Vec<UnixStream>,
    assignments: Vec<Assignment>,
    heard: Receiver<Heard>,
    addresses: BTreeMap<u32, String>,
    /// The numerics fingerprint by process.
    fingerprints: BTreeMap<u32, BTreeMap<String, String>>,
    /// The one that was said last.
    pub numerics: BTreeMap<String, String>,
    pub environment: BTreeMap<String, String>,
    /// What was said before the end.
    said: Vec<(u32, Body)>,
    hung_up: usize,
    _socket_dir: tempfile::TempDir,
}

impl Processes {
    fn start(lab: &Lab, processes: u32, restore: Option<&Manifest>) -> Self {
        let socket_dir = tempfile::tempdir().unwrap();
        let socket = socket_dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let children: Vec<Child> = (0..processes)
            .map(|process| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
                for name in numerics::VARIABLES.iter().filter(|_| lab.plain) {
                    command.env_remove(name);
                }
                command
                    .args(["rank", "--socket"])
                    .arg(&socket)
                    .args(["--run", RUN, "--generation", "1", "--process", &process.to_string()])
                    .args(lab.messages.then_some("--no-shared-memory"))
                    .envs(numerics::environment(&lab.job))
                    .envs(lab.variables.get(&process).into_iter().flatten().cloned())
                    .stdin(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let assignments: Vec<_> = (0..processes).map(|process| lab.assignment(process, processes, restore)).collect();
        let (sender, heard) = channel();
        let (accepted, connections) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepted.send(stream.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut streams: Vec<Option<UnixStream>> = (0..processes).map(|_| None).collect();
        for _ in 0..processes {
            let mut stream = connections.recv_timeout(DEADLINE).expect("every process connects");
            let hello = frame::read::<ProcessMessage>(&mut stream).unwrap().unwrap();
            let Some(Body::Hello(hello)) = hello.body else { panic!("{hello:?}") };
            assert_eq!((hello.run.as_str(), hello.generation), (RUN, 1));
            let assign = AgentCommand { body: Some(CommandBody::Assign(assignments[hello.process as usize].clone())) };
            frame::write(&mut stream, &assign).unwrap();
            listen(hello.process, stream.try_clone().unwrap(), sender.clone());
            streams[hello.process as usize] = Some(stream);
        }
        Self {
            children,
            streams: streams.into_iter().map(Option::unwrap).collect(),
            assignments,
            heard,
            addresses: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            numerics: BTreeMap::new(),
            environment: BTreeMap::new(),
            said: Vec::new(),
            hung_up: 0,
            _socket_dir: socket_dir,
        }
    }

    /// Waits until all are ready, or all have given up.
    fn all_ready(&mut self) -> bool {
        while self.addresses.len() + self.hung_up < self.children.len() {
            match self.heard.recv_timeout(DEADLINE).expect("a process is ready or ends") {
                Heard::Said(process, Body::Ready(ready)) => {
                    self.numerics = ready.numerics.into_iter().collect();
                    self.fingerprints.insert(process, self.numerics.clone());
                    self.environment = ready.environment.into_iter().collect();
                    self.addresses.insert(process, ready.address);
                }
                Heard::Said(process, body) => self.said.push((process, body)),
                Heard::HungUp(_) => self.hung_up += 1,
            }
        }
        self.hung_up == 0
    }

    fn tell_peers(&mut self) {
        let peers: Vec<String> = self.addresses.values().cloned().collect();
        for (stream, assignment) in self.streams.iter_mut().zip(&self.assignments) {
            let start = Assignment { peers: peers.clone(), ..assignment.clone() };
            // A process that was killed does not hear it.
            frame::write(stream, &AgentCommand { body: Some(CommandBody::Start(start)) }).ok();
        }
    }

    /// Waits until `process` has said that it made `step`; what is heard is kept.
    pub fn wait_for_step(&mut self, step: u64) {
        self.tell_peers();
        let reached =
            |body: &Body| matches!(body, Body::Block(block) if block.steps.iter().any(|report| report.step >= step));
        loop {
            match self.heard.recv_timeout(DEADLINE).expect("the run makes steps") {
                Heard::Said(process, body) => {
                    let done = reached(&body);
                    self.said.push((process, body));
                    if done {
                        return;
                    }
                }
                Heard::HungUp(process) => panic!("process {process} ended early"),
            }
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, process: usize) {
        self.children[process].kill().unwrap();
    }

    /// Ends the connection to one process, as an agent that dies does.
    pub fn hang_up(&mut self, process: usize) {
        self.streams[process].shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Tells all processes what became of the last checkpoint, as the coordinator does: committed with the last share of it, given
    /// up with the first failure.
    fn judge_last(&mut self, last: u64) {
        let shares = self.said.iter().filter(|(_, body)| matches!(body, Body::Share(share) if share.step == last));
        let committed = shares.count() == self.children.len();
        let failed = |body: &Body| matches!(body, Body::CheckpointFailed(failed) if failed.step == last);
        let given_up = self.said.iter().any(|(_, body)| failed(body));
        if committed || given_up {
            let save = AgentCommand { body: Some(CommandBody::Save(Save { committed, given_up, attempt: 0 })) };
            // A process that has ended does not hear it.
            self.streams.iter_mut().for_each(|stream| drop(frame::write(stream, &save)));
        }
    }

    /// Hears everything until all have hung up, acknowledges at once, and commits what checkpoints are complete.
    fn finish(mut self, lab: &Lab) -> Outcome {
        self.judge_last(lab.job.steps);
        while self.hung_up < self.children.len() {
            match self.heard.recv_timeout(DEADLINE).expect("the run goes on or ends") {
                Heard::Said(process, body) => {
                    if matches!(body, Body::Finished(_)) {
                        let drained = AgentCommand { body: Some(CommandBody::Drained(Empty {})) };
                        frame::write(&mut self.streams[process as usize], &drained).unwrap();
                    }
                    let judged = matches!(body, Body::Share(_) | Body::CheckpointFailed(_));
                    self.said.push((process, body));
                    if judged {
                        self.judge_last(lab.job.steps);
                    }
                }
                Heard::HungUp(_) => self.hung_up += 1,
            }
        }
        let mut outcome = Outcome::default();
        for mut child in self.children {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            outcome.stderr += &stderr;
            let status = wait(&mut child);
            outcome.codes.push(status.code().unwrap_or_else(|| 128 + status.signal().unwrap()));
        }
        let processes = outcome.codes.len();
        let mut shares: BTreeMap<u64, Vec<Share>> = BTreeMap::new();
        for (process, body) in self.said {
            match body {
                Body::Block(block) => {
                    assert_eq!(block.process, process);
                    outcome.steps.extend(block.steps);
                    outcome.layers.extend(block.layers);
                    outcome.evals.extend(block.evals);
                    outcome.systems.extend(block.systems.into_iter().map(|system| (process, system)));
                }
                Body::Share(share) => {
                    shares.entry(share.step).or_default().push(serde_json::from_slice(&share.json).unwrap());
                }
                Body::CheckpointFailed(failed) => outcome.checkpoint_failures.push((failed.step, failed.reason)),
                Body::Finished(finished) => {
                    assert_eq!(finished.step, lab.job.steps);
                    outcome.states.push(Digest::from_bytes(finished.state.try_into().unwrap()));
                }
                Body::Failed(failed) => outcome.failures.push(failed.reason),
                Body::Corrupt(corrupt) => outcome.corrupt.push(corrupt),
                other => panic!("{other:?}"),
            }
        }
        for (step, shares) in shares {
            if shares.len() == processes {
                outcome.manifests.push(commit(lab, step, shares, &self.numerics, &self.environment));
            }
        }
        outcome
    }
}

fn listen(process: u32, mut stream: UnixStream, heard: Sender<Heard>) {
    thread::spawn(move || {
        while let Ok(Some(message)) = frame::read::<ProcessMessage>(&mut stream) {
            if heard.send(Heard::Said(process, message.body.unwrap())).is_err() {
                return;
            }
        }
        heard.send(Heard::HungUp(process)).ok();
    });
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "a process that has hung up ends");
        thread::yield_now();
    }
}

/// What the coordinator makes of all shares.
fn commit(
    lab: &Lab,
    step: u64,
    shares: Vec<Share>,
    numerics: &BTreeMap<String, String>,
    environment: &BTreeMap<String, String>,
) -> Manifest {
    let (mut record, mut preprocessing): (Option<RecordPosition>, _) = (None, None);
    let (mut tensors, mut ranks, mut epoch) = (Vec::new(), Vec::new(), 0);
    for share in shares {
        assert_eq!(share.step, step);
        epoch = share.epoch;
        tensors.extend(share.tensors);
        ranks.extend(share.ranks);
        assert!(record.is_none() || share.record.is_none(), "one process has the record");
        record = record.or(share.record);
        preprocessing = preprocessing.or(share.preprocessing);
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    ranks.sort_by_key(|rank| rank.rank);
    let manifest = Manifest {
        format: manifest::FORMAT,
        run: RUN.parse::<RunId>().unwrap(),
        step,
        epoch,
        parent: None,
        job: lab.job.digest(),
        job_text: String::from_utf8(lab.job.canonical()).unwrap(),
        base_dir: lab.dir.path().to_str().unwrap().to_owned(),
        code: None,
        data: lab.data.clone(),
        preprocessing,
        environment: environment.clone(),
        numerics: numerics.clone(),
        overrides: Vec::new(),
        state: manifest::state_digest(&tensors),
        tensors,
        ranks,
        record: record.expect("process 0 has the record"),
    };
    manifest.check().unwrap();
    manifest
}

/// A file of IDX format: `u8`, with these sizes.
pub fn idx(sizes: &[u32], value: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    for size in sizes {
        bytes.extend(size.to_be_bytes());
    }
    let count = sizes.iter().product::<u32>() as usize;
    bytes.extend((0..count).map(value));
    bytes
}

pub fn path_of_blob(store: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_hex();
    store.join(&name[..2]).join(name)
}
