//! An agent without processes, which says what theirs would.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_common::manifest::{RankState, RecordPosition, Share, TensorEntry};
use lockstep_common::record::chain_start;
use lockstep_host::blobs::BlobStore;
use lockstep_host::shared;
use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::agents_client::AgentsClient;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{
    AgentMessage, Assignment, AssignmentRequest, CheckpointShare, CoordinatorMessage, DesiredProcess, DesiredRun,
    Device, Heartbeat, Hello, PROTOCOL, ProcessMessage, Ready, Report, StoreSeen,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{Failure, PATIENCE};

/// More often than a coordinator wants to hear from a node.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Agent {
    say: mpsc::Sender<AgentMessage>,
    told: Streaming<CoordinatorMessage>,
    /// The last sequence number that was acknowledged, by run and process.
    acknowledged: BTreeMap<(String, u32), u64>,
    /// Goes with the stream: the coordinator has read it by then.
    _answer: shared::Answer,
}

impl Agent {
    pub(crate) async fn attach(address: &str, slots: u32) -> Result<Self, Failure> {
        let mut client = AgentsClient::connect(format!("http://{address}")).await?;
        let (say, messages) = mpsc::channel(64);
        let device = Device { name: "cpu".into(), model: "none".into(), memory_bytes: 1 << 30 };
        let hello = Hello {
            node: "bench".into(),
            incarnation: "1".into(),
            host: "bench".into(),
            devices: vec![device; slots as usize],
            version: "0".into(),
            protocol: PROTOCOL,
            ..Hello::default()
        };
        say.send(AgentMessage { body: Some(Say::Hello(hello)) }).await?;
        let mut told = client.attach(ReceiverStream::new(messages)).await?.into_inner();
        let Some(Told::Welcome(welcome)) = told.message().await?.and_then(|message| message.body) else {
            return Err("the coordinator's first word is no welcome".into());
        };
        let answer = shared::answer(Path::new(&welcome.store), &welcome.check, "seen")?;
        let seen = StoreSeen {
            found: answer.found.clone(),
            wrote: "seen".into(),
            path: welcome.store,
            ..StoreSeen::default()
        };
        say.send(AgentMessage { body: Some(Say::Store(seen)) }).await?;
        Ok(Self { say, told, acknowledged: BTreeMap::new(), _answer: answer })
    }

    /// The processes that it should run, once there are so many.
    pub(crate) async fn assigned(&mut self, processes: usize) -> Result<Vec<Assignment>, Failure> {
        let end = Instant::now() + PATIENCE;
        let mut heart = tokio::time::interval(HEARTBEAT);
        let (mut desired, mut assignments) = (Vec::new(), BTreeMap::new());
        while Instant::now() < end {
            tokio::select! {
                told = self.listen() => match told? {
                    Some(Told::Desired(now)) => {
                        desired = now.runs;
                        for DesiredRun { run, generation, .. } in desired.clone() {
                            if let Entry::Vacant(entry) = assignments.entry((run.clone(), generation)) {
                                let asked = Say::Fetch(AssignmentRequest { run, generation });
                                self.say.send(AgentMessage { body: Some(asked) }).await?;
                                entry.insert(None);
                            }
                        }
                    }
                    Some(Told::Assignment(one)) => {
                        assignments.insert((one.run.clone(), one.generation), Some(one));
                    }
                    _ => {}
                },
                _ = heart.tick() => self.beat().await?,
            }
            let of = |run: &DesiredRun| {
                let whole = assignments.get(&(run.run.clone(), run.generation))?.clone()?;
                let process = |one: &DesiredProcess| Assignment { process: one.process, ..whole.clone() };
                Some(run.processes.iter().map(process).collect::<Vec<_>>())
            };
            let all = desired.iter().map(of).collect::<Option<Vec<_>>>().map(|all| all.concat());
            if let Some(all) = all.filter(|all| all.len() >= processes) {
                return Ok(all);
            }
        }
        Err(format!("there were no {processes} processes to run").into())
    }

    /// It lives.
    async fn beat(&self) -> Result<(), Failure> {
        Ok(self.say.send(AgentMessage { body: Some(Say::Heartbeat(Heartbeat {})) }).await?)
    }

    /// A process has loaded what it needs: its first report.
    pub(crate) async fn ready(&self, of: &Assignment) -> Result<(), Failure> {
        let numerics = [("threads".to_owned(), "1".to_owned())].into();
        let address = format!("127.0.0.1:{}", 9000 + of.process);
        self.say(of, 1, Said::Ready(Ready { address, numerics, environment: [].into() })).await
    }

    pub(crate) async fn say(&self, of: &Assignment, sequence: u64, body: Said) -> Result<(), Failure> {
        let message = Some(ProcessMessage { body: Some(body) });
        let Assignment { run, generation, process, .. } = of;
        let (generation, process) = (*generation, *process);
        let report = Report { run: run.clone(), generation, process, sequence, message };
        Ok(self.say.send(AgentMessage { body: Some(Say::Report(report)) }).await?)
    }

    /// The checkpoint at `step` of a process that is alone, with one number in it.
    pub(crate) async fn share(&self, of: &Assignment, sequence: u64, step: u64) -> Result<(), Failure> {
        let store = BlobStore::existing(Path::new(&of.store))?;
        let piece = store.put(&[0; 4])?;
        let tensor = TensorEntry { name: "model/w".into(), dtype: "float".into(), shape: vec![1], pieces: vec![piece] };
        let rank = RankState {
            rank: 0,
            seeds: BTreeMap::new(),
            epoch: 0,
            consumed: step,
            next_position: step,
            generators: BTreeMap::new(),
        };
        let record = Some(RecordPosition { steps: step, digest: chain_start() });
        let share = Share { step, epoch: 0, tensors: vec![tensor], ranks: vec![rank], record, preprocessing: None };
        let blob = Some((&store.put(&share.encode())?).into());
        self.say(of, sequence, Said::Share(CheckpointShare { step, blob })).await
    }

    pub(crate) async fn acknowledged_to(&mut self, all: &[Assignment], sequence: u64) -> Result<(), Failure> {
        while all.iter().any(|of| self.acknowledged.get(&(of.run.clone(), of.process)).copied().unwrap_or(0) < sequence)
        {
            self.listen().await?;
        }
        Ok(())
    }

    /// A moment, in which the node still lives.
    pub(crate) async fn wait(&self) -> Result<(), Failure> {
        self.beat().await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    async fn listen(&mut self) -> Result<Option<Told>, Failure> {
        let message = tokio::time::timeout(PATIENCE, self.told.message()).await??;
        let body = message.ok_or("the coordinator has ended the stream")?.body;
        if let Some(Told::Acknowledged(ack)) = &body {
            self.acknowledged.insert((ack.run.clone(), ack.process), ack.sequence);
        }
        Ok(body)
    }
}
