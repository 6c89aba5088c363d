//! The agents of several nodes, with one queue for all messages to them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{AgentMessage, Assignment, CoordinatorMessage, Heartbeat};
use lockstep_store::shared;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use crate::agent::{Agent, HEARTBEAT, report};
use crate::desires::Desires;
use crate::failure::{Failure, PATIENCE};

/// Index of a node, time of receipt, and a message to it.
type Heard = (usize, Instant, Result<Option<CoordinatorMessage>, Status>);

/// All connected agents.
pub(crate) struct Crew {
    says: Vec<mpsc::Sender<AgentMessage>>,
    heard: mpsc::UnboundedReceiver<Heard>,
    /// Desired state of each node.
    desires: Vec<Desires>,
    /// Assignments of each node's processes, from `desires`.
    desired: Vec<Vec<Assignment>>,
    /// The last acknowledged sequence number, and its time, by run and process.
    acknowledged: BTreeMap<(String, u32), (u64, Instant)>,
    /// Number of acknowledgements to all processes.
    acknowledgements: u64,
    /// Encoded bytes of all messages to all nodes.
    bytes: u64,
    _answers: Vec<shared::Answer>,
    /// Tasks that read streams and send heartbeats; they end when this is dropped.
    _tasks: JoinSet<()>,
}

impl Crew {
    /// Connects `nodes` nodes with `slots` CPU slots each.
    pub(crate) async fn attach(address: &str, nodes: u32, slots: u32) -> Result<Self, Failure> {
        let (to, heard) = mpsc::unbounded_channel();
        let (mut says, mut answers, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        for node in 0..nodes {
            let Agent { say, told, answer, .. } = Agent::attach_as(address, &format!("bench-{node:03}"), slots).await?;
            tasks.spawn(listen(node as usize, told, to.clone()));
            tasks.spawn(beat(say.clone()));
            says.push(say);
            answers.push(answer);
        }
        let (desires, desired) = (vec![Desires::default(); nodes as usize], vec![Vec::new(); nodes as usize]);
        Ok(Self {
            says,
            heard,
            desires,
            desired,
            acknowledged: BTreeMap::new(),
            acknowledgements: 0,
            bytes: 0,
            _answers: answers,
            _tasks: tasks,
        })
    }

    pub(crate) fn nodes(&self) -> usize {
        self.says.len()
    }

    /// Encoded bytes of all messages to all nodes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Assignments of all processes, each with the index of its node.
    pub(crate) fn assignments(&self) -> impl Iterator<Item = (usize, &Assignment)> {
        self.desired.iter().enumerate().flat_map(|(node, all)| all.iter().map(move |one| (node, one)))
    }

    /// Whether the desired state of every node is empty.
    pub(crate) fn is_idle(&self) -> bool {
        self.desires.iter().all(Desires::is_empty)
    }

    /// Whether the node has received the peers of this process.
    pub(crate) fn has_met(&self, node: usize, of: &Assignment) -> bool {
        self.desires[node].has_met(of)
    }

    /// Whether the last checkpoint of that process's run is committed.
    pub(crate) fn is_saved(&self, node: usize, of: &Assignment) -> bool {
        self.desires[node].is_saved(of)
    }

    /// Number of acknowledgements to all processes so far.
    pub(crate) fn acknowledgements(&self) -> u64 {
        self.acknowledgements
    }

    /// The last acknowledged sequence number of a process, and its time.
    pub(crate) fn acknowledged(&self, of: &Assignment) -> Option<(u64, Instant)> {
        self.acknowledged.get(&(of.run.clone(), of.process)).copied()
    }

    pub(crate) async fn say(&self, node: usize, of: &Assignment, sequence: u64, body: Said) -> Result<(), Failure> {
        Ok(self.says[node].send(report(of, sequence, body)).await?)
    }

    /// Processes messages until `is_so` returns true; fails after [`PATIENCE`].
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > end {
                return Err(format!("waited {PATIENCE:?} until {what}").into());
            }
            self.listen().await?;
        }
        Ok(())
    }

    /// Processes one message, or returns after one second without a message.
    pub(crate) async fn listen(&mut self) -> Result<(), Failure> {
        const PAUSE: Duration = Duration::from_secs(1);
        let Ok(heard) = tokio::time::timeout(PAUSE, self.heard.recv()).await else { return Ok(()) };
        let (node, at, message) = heard.ok_or("the streams of all nodes have ended")?;
        let message = message?.ok_or_else(|| format!("the coordinator ended the stream of node {node}"))?;
        self.bytes += message.encoded_len() as u64;
        match message.body {
            Some(told @ (Told::Desired(_) | Told::Assignment(_) | Told::Peers(_))) => {
                for ask in self.desires[node].take(told) {
                    self.says[node].send(ask).await?;
                }
                self.desired[node] = self.desires[node].all();
            }
            Some(Told::Acknowledged(ack)) => {
                self.acknowledgements += 1;
                self.acknowledged.insert((ack.run, ack.process), (ack.sequence, at));
            }
            _ => {}
        }
        Ok(())
    }
}

async fn listen(node: usize, mut told: Streaming<CoordinatorMessage>, to: mpsc::UnboundedSender<Heard>) {
    loop {
        let message = told.message().await;
        let is_last = !matches!(message, Ok(Some(_)));
        if to.send((node, Instant::now(), message)).is_err() || is_last {
            return;
        }
    }
}

/// Sends heartbeats until the stream has ended.
async fn beat(say: mpsc::Sender<AgentMessage>) {
    let mut heart = tokio::time::interval(HEARTBEAT);
    while say.send(AgentMessage { body: Some(Say::Heartbeat(Heartbeat {})) }).await.is_ok() {
        heart.tick().await;
    }
}
