//! Real rank processes, with a stand-in for agent and coordinator that assigns, connects peers, and commits checkpoints.

use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use lockstep_common::manifest::{self, Manifest, RecordPosition, Share};
use lockstep_common::{Digest, RunId, numerics};
use lockstep_rpc::agent_command::Body as CommandBody;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{AgentCommand, Empty, Peers, ProcessMessage, Save, decode_block, frame};
use lockstep_store::BlobStore;
use lockstep_support::Process;

use crate::lab::{Lab, Outcome};

/// Time limit of every wait; longer than any wait takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(2);

/// The id of the run.
pub(crate) const RUN: &str = "0123456789";

enum Heard {
    Said(u32, Body),
    HungUp(u32),
}

/// Running rank processes.
pub(crate) struct Processes {
    children: Vec<Process>,
    streams: Vec<UnixStream>,
    heard: Receiver<Heard>,
    addresses: BTreeMap<u32, String>,
    /// The numerics fingerprint by process.
    pub(crate) fingerprints: BTreeMap<u32, BTreeMap<String, String>>,
    /// The fingerprint that was reported last.
    pub(crate) numerics: BTreeMap<String, String>,
    pub(crate) environment: BTreeMap<String, String>,
    /// The messages so far, by process.
    said: Vec<(u32, Body)>,
    hung_up: usize,
    _socket_dir: tempfile::TempDir,
}

impl Processes {
    pub(crate) fn start(lab: &Lab, processes: u32, restore: Option<&Manifest>) -> Self {
        let socket_dir = tempfile::tempdir().unwrap();
        let socket = socket_dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let children: Vec<Process> = (0..processes)
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
                    .envs(lab.variables.get(&process).into_iter().flatten().cloned());
                Process::start(&mut command)
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

    /// Waits until every process is ready or has ended; returns whether all are ready.
    pub(crate) fn all_ready(&mut self) -> bool {
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

    pub(crate) fn tell_peers(&mut self) {
        let peers: Vec<String> = self.addresses.values().cloned().collect();
        for stream in &mut self.streams {
            let start = Peers { run: RUN.to_owned(), generation: 1, addresses: peers.clone() };
            // An error is ignored: the process may have been killed.
            frame::write(stream, &AgentCommand { body: Some(CommandBody::Start(start)) }).ok();
        }
    }

    /// Sends the peers, and waits until a process has reported `step`. Messages are kept.
    pub(crate) fn wait_for_step(&mut self, step: u64) {
        self.tell_peers();
        let reached = |body: &Body| matches!(body, Body::Block(block) if block.known().last_step >= step);
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

    /// Kills a process with SIGKILL.
    pub(crate) fn kill(&mut self, process: usize) {
        self.children[process].kill();
    }

    /// Closes the connection to a process, as if the agent had died.
    pub(crate) fn hang_up(&mut self, process: usize) {
        self.streams[process].shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Sends all processes the verdict on the last checkpoint, as the coordinator does: committed after the last share, given up after
    /// the first failure.
    fn judge_last(&mut self, last: u64) {
        let shares = self.said.iter().filter(|(_, body)| matches!(body, Body::Share(share) if share.step == last));
        let committed = shares.count() == self.children.len();
        let failed = |body: &Body| matches!(body, Body::CheckpointFailed(failed) if failed.step == last);
        let given_up = self.said.iter().any(|(_, body)| failed(body));
        if committed || given_up {
            let save = AgentCommand { body: Some(CommandBody::Save(Save { committed, given_up, attempt: 0 })) };
            // An error is ignored: the process may have ended.
            self.streams.iter_mut().for_each(|stream| drop(frame::write(stream, &save)));
        }
    }

    /// Receives all messages until every process has closed its connection, acknowledges them at once, and commits complete checkpoints.
    pub(crate) fn finish(mut self, lab: &Lab) -> Outcome {
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
            let ended = child.end(DEADLINE);
            outcome.stderr += &ended.said;
            outcome.codes.push(if ended.code < 0 { 128 - ended.code } else { ended.code });
        }
        let processes = outcome.codes.len();
        let mut shares: BTreeMap<u64, Vec<Share>> = BTreeMap::new();
        for (process, body) in self.said {
            match body {
                Body::Block(block) => {
                    let block = decode_block(process, &block.into_stored()).unwrap().block;
                    outcome.steps.extend(block.steps);
                    outcome.layers.extend(block.layers);
                    outcome.evals.extend(block.evals);
                    outcome.systems.extend(block.systems.into_iter().map(|system| (process, system)));
                }
                Body::Share(share) => {
                    let described =
                        BlobStore::existing(&lab.store()).unwrap().get(&share.blob.unwrap().try_into().unwrap());
                    shares.entry(share.step).or_default().push(Share::decode(&described.unwrap()).unwrap());
                }
                Body::CheckpointFailed(failed) => outcome.checkpoint_failures.push((failed.step, failed.reason)),
                Body::Finished(finished) => {
                    assert_eq!(finished.step, lab.job.steps);
                    outcome.states.push(Digest::from_bytes(finished.state.try_into().unwrap()));
                }
                Body::Failed(failed) => outcome.failures.push(failed.reason),
                Body::Corrupt(corrupt) => outcome.corrupt.push(corrupt),
                // Sent every second; its content does not matter here.
                Body::Alive(_) => {}
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

/// Builds the manifest from all shares, as the coordinator does.
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
