//! The attached nodes: the event loop's end of each node's session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_common::{NodeId, RunId};
use lockstep_core::desired::{desired, peers};
use lockstep_core::state::Run;
use lockstep_core::{ClusterState, DesiredRun};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::{mpsc, oneshot, watch};

use super::error::CallError;

/// Maximum number of queued log requests per agent. Only users read logs, a few at a time.
const LOG_REQUESTS: usize = 64;

/// Desired state of one node, by run.
pub type Desired = BTreeMap<RunId, Arc<RunOnNode>>;

/// Desired state of one run on one node, with the data of the run that the node's stream needs.
#[derive(Debug, PartialEq)]
pub struct RunOnNode {
    /// The processes that the node should run.
    pub desired: DesiredRun,
    /// Addresses of all processes of the generation, by process index; `None` until all are ready.
    pub peers: Option<Arc<Vec<String>>>,
    /// Samples per step, of all ranks together.
    pub batch: u64,
    /// Number of steps in the job.
    pub steps: u64,
}

/// The receiving ends of an attached node's session.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) logs: mpsc::Receiver<LogRequest>,
}

type LogAnswer = oneshot::Sender<Result<LogReply, CallError>>;

#[derive(Debug)]
struct Slot {
    /// Log index at which its agent joined.
    joined: u64,
    desired: watch::Sender<Desired>,
    logs: mpsc::Sender<LogRequest>,
    /// Unanswered log requests by number.
    asked: BTreeMap<u64, LogAnswer>,
}

/// All attached nodes by name.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: BTreeMap<NodeId, Slot>,
    /// For each run, the nodes that should run processes of it.
    nodes: BTreeMap<RunId, BTreeSet<NodeId>>,
    last_log_id: u64,
}

impl Sessions {
    /// Attaches `node`, and closes its earlier session, if there is one.
    pub(super) fn attach(&mut self, node: NodeId, state: &ClusterState) -> Attached {
        let runs = state.runs().into_iter().filter_map(|run| Some((run.id().clone(), on_nodes(run).remove(&node)?)));
        let (desired, receiver) = watch::channel(runs.collect::<Desired>());
        for run in receiver.borrow().keys() {
            self.nodes.entry(run.clone()).or_default().insert(node.clone());
        }
        let (logs, requests) = mpsc::channel(LOG_REQUESTS);
        let joined = state.node(&node).map_or(0, |node| node.joined);
        self.slots.insert(node, Slot { joined, desired, logs, asked: BTreeMap::new() });
        Attached { desired: receiver, logs: requests }
    }

    pub(super) fn close(&mut self, node: &NodeId) {
        self.slots.remove(node);
    }

    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.slots.contains_key(node)
    }

    /// The nodes whose session has ended since the last call, each with the log index at which its agent joined.
    pub(super) fn take_ended(&mut self) -> Vec<(NodeId, u64)> {
        let ended = self.slots.extract_if(.., |_, slot| slot.desired.is_closed());
        ended.map(|(node, slot)| (node, slot.joined)).collect()
    }

    /// Sends the new desired state of the runs in `changed` to each attached node for which it differs.
    pub(super) fn publish(&mut self, state: &ClusterState, changed: &BTreeSet<RunId>) {
        for id in changed {
            let mut now = state.run(id).map(on_nodes).unwrap_or_default();
            let nodes: BTreeSet<NodeId> = now.keys().cloned().collect();
            let before = self.nodes.remove(id).unwrap_or_default();
            for node in nodes.union(&before) {
                let Some(slot) = self.slots.get(node) else { continue };
                let on_node = now.remove(node);
                slot.desired.send_if_modified(|runs| {
                    let is_changed = runs.get(id) != on_node.as_ref();
                    match on_node {
                        Some(on_node) => drop(runs.insert(id.clone(), on_node)),
                        None => drop(runs.remove(id)),
                    }
                    is_changed
                });
            }
            if !nodes.is_empty() {
                self.nodes.insert(id.clone(), nodes);
            }
        }
    }

    /// Requests a log from `node`. Sends `NotConnected` to `answer` if the node has no session, or too many queued requests.
    pub(super) fn read_log(&mut self, node: &NodeId, mut request: LogRequest, answer: LogAnswer) {
        let id = self.last_log_id + 1;
        request.id = id;
        let asked = match self.slots.get_mut(node) {
            Some(slot) if slot.logs.try_send(request).is_ok() => &mut slot.asked,
            _ => {
                // An error means that the caller has given up.
                let _ = answer.send(Err(CallError::NotConnected(node.clone())));
                return;
            }
        };
        self.last_log_id = id;
        asked.retain(|_, answer| !answer.is_closed());
        asked.insert(id, answer);
    }

    /// Forwards the answer of `node` to the caller; drops it if the caller has given up.
    pub(super) fn log_read(&mut self, node: &NodeId, reply: LogReply) {
        if let Some(answer) = self.slots.get_mut(node).and_then(|slot| slot.asked.remove(&reply.id)) {
            let _ = answer.send(Ok(reply));
        }
    }
}

/// Desired state of `run` on each node that should run processes of it.
fn on_nodes(run: &Run) -> BTreeMap<NodeId, Arc<RunOnNode>> {
    let peers = peers(run).map(Arc::new);
    let on_node = |(node, desired)| {
        let (batch, steps) = (run.job.batch.size, run.job.steps);
        (node, Arc::new(RunOnNode { desired, peers: peers.clone(), batch, steps }))
    };
    desired(run).into_iter().map(on_node).collect()
}
