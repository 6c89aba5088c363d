//! A simulated agent, which sends reports of processes that do not exist.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_net::Dialer;
use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::agents_client::AgentsClient;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::frame::MAX_FRAME_BYTES;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{
    AgentMessage, Assignment, CoordinatorMessage, Device, Heartbeat, Hello, PROTOCOL, ProcessMessage, Ready, Report,
    StoreSeen,
};
use lockstep_store::shared;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::desires::Desires;
use crate::failure::{Failure, PATIENCE};
use crate::words::{share, tensor};

/// Maximum length of a message to an agent, in bytes.
const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + 65_536;

/// Interval of heartbeats; shorter than a coordinator needs.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);

/// One connected agent.
pub(crate) struct Agent {
    pub(crate) say: mpsc::Sender<AgentMessage>,
    pub(crate) told: Streaming<CoordinatorMessage>,
    /// The last acknowledged sequence number, by run and process.
    acknowledged: BTreeMap<(String, u32), u64>,
    /// The agent's answer file in the store. It is removed when the value is dropped, after the coordinator has read it.
    pub(crate) answer: shared::Answer,
}

impl Agent {
    pub(crate) async fn attach(address: &str, slots: u32) -> Result<Self, Failure> {
        Self::attach_as(address, "bench", slots).await
    }

    /// The agent of the node called `node`.
    pub(crate) async fn attach_as(address: &str, node: &str, slots: u32) -> Result<Self, Failure> {
        let dialer = Dialer::to(address)
            .ok_or_else(|| format!("the coordinator printed `{address}`, which is not an address"))?;
        let mut client = AgentsClient::new(dialer.connect().await?).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (say, messages) = mpsc::channel(64);
        let device = Device { name: "cpu".into(), model: "none".into(), memory_bytes: 1 << 30 };
        let hello = Hello {
            node: node.into(),
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
            return Err("the coordinator's first message is not `Welcome`".into());
        };
        let answer = shared::answer(Path::new(&welcome.store), &welcome.check, "seen")?;
        let seen = StoreSeen {
            found: answer.found.clone(),
            wrote: "seen".into(),
            path: welcome.store,
            ..StoreSeen::default()
        };
        say.send(AgentMessage { body: Some(Say::Store(seen)) }).await?;
        Ok(Self { say, told, acknowledged: BTreeMap::new(), answer })
    }

    /// Waits until the node should run at least `processes` processes, and returns all of them.
    pub(crate) async fn assigned(&mut self, processes: usize) -> Result<Vec<Assignment>, Failure> {
        let end = Instant::now() + PATIENCE;
        let mut heart = tokio::time::interval(HEARTBEAT);
        let mut desires = Desires::default();
        while Instant::now() < end {
            tokio::select! {
                told = self.listen() => {
                    for ask in told?.map(|told| desires.take(told)).unwrap_or_default() {
                        self.say.send(ask).await?;
                    }
                }
                _ = heart.tick() => self.beat().await?,
            }
            let all = desires.all();
            if all.len() >= processes {
                return Ok(all);
            }
        }
        Err(format!("fewer than {processes} processes were assigned within {PATIENCE:?}").into())
    }

    /// Sends a heartbeat.
    async fn beat(&self) -> Result<(), Failure> {
        Ok(self.say.send(AgentMessage { body: Some(Say::Heartbeat(Heartbeat {})) }).await?)
    }

    /// Sends `Ready` for a process, as its report 1.
    pub(crate) async fn ready(&self, of: &Assignment) -> Result<(), Failure> {
        let numerics = [("threads".to_owned(), "1".to_owned())].into();
        let address = format!("127.0.0.1:{}", 9000 + of.process);
        self.say(of, 1, Said::Ready(Ready { address, numerics, environment: [].into() })).await
    }

    pub(crate) async fn say(&self, of: &Assignment, sequence: u64, body: Said) -> Result<(), Failure> {
        Ok(self.say.send(report(of, sequence, body)).await?)
    }

    /// Writes and reports the share of a checkpoint with one tensor of one number, for a run with a single process.
    pub(crate) async fn share(&self, of: &Assignment, sequence: u64, step: u64) -> Result<(), Failure> {
        let share = share(&of.store, step, 0, vec![tensor(&of.store, "model/w".to_owned())?])?;
        self.say(of, sequence, Said::Share(share)).await
    }

    pub(crate) async fn acknowledged_to(&mut self, all: &[Assignment], sequence: u64) -> Result<(), Failure> {
        while all.iter().any(|of| self.acknowledged.get(&(of.run.clone(), of.process)).copied().unwrap_or(0) < sequence)
        {
            self.listen().await?;
        }
        Ok(())
    }

    /// Sends a heartbeat and sleeps for 20 ms.
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

/// Wraps a report of the process `of` for the agent's stream.
pub(crate) fn report(of: &Assignment, sequence: u64, body: Said) -> AgentMessage {
    let message = Some(ProcessMessage { body: Some(body) });
    let Assignment { run, generation, process, .. } = of;
    let (generation, process) = (*generation, *process);
    let report = Report { run: run.clone(), generation, process, sequence, message };
    AgentMessage { body: Some(Say::Report(report)) }
}
