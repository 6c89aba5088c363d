//! The attached nodes, as the event loop sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_common::NodeId;
use lockstep_core::{Assigned, ClusterState, desired};
use lockstep_rpc::{LogReply, LogRequest};
use tokio::sync::{mpsc, oneshot, watch};

use super::request::{Attached, CallError};

/// Log requests that one agent may have open: people read logs, a few at a time.
const LOG_REQUESTS: usize = 64;

type LogAnswer = oneshot::Sender<Result<LogReply, CallError>>;

#[derive(Debug)]
struct Slot {
    /// Where in the log its agent joined.
    joined: u64,
    desired: watch::Sender<Arc<Vec<Assigned>>>,
    logs: mpsc::Sender<LogRequest>,
    /// Open log requests by number.
    asked: BTreeMap<u64, LogAnswer>,
}

/// All attached nodes by name.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: BTreeMap<NodeId, Slot>,
    last_log_id: u64,
}

impl Sessions {
    /// Attaches `node`; a session that it had before is closed.
    pub(super) fn attach(&mut self, node: NodeId, state: &ClusterState) -> Attached {
        let (desired, receiver) = watch::channel(Arc::new(desired(state, &node)));
        let (logs, requests) = mpsc::channel(LOG_REQUESTS);
        let joined = state.node(&node).map_or(0, |node| node.joined);
        self.slots.insert(node, Slot { joined, desired, logs, asked: BTreeMap::new() });
        Attached { desired: receiver, logs: requests }
    }

    /// Closes the session of `node`.
    pub(super) fn close(&mut self, node: &NodeId) {
        self.slots.remove(node);
    }

    /// Whether `node` has a session.
    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.slots.contains_key(node)
    }

    /// The nodes whose session has ended since the last call, each with where in the log its agent had joined.
    pub(super) fn take_ended(&mut self) -> Vec<(NodeId, u64)> {
        let ended = self.slots.extract_if(.., |_, slot| slot.desired.is_closed());
        ended.map(|(node, slot)| (node, slot.joined)).collect()
    }

    /// Tells every attached node what it should run, if that has changed.
    pub(super) fn publish(&mut self, state: &ClusterState) {
        for (node, slot) in &self.slots {
            let now = desired(state, node);
            slot.desired.send_if_modified(|last| {
                let changed = **last != now;
                if changed {
                    *last = Arc::new(now);
                }
                changed
            });
        }
    }

    /// Asks `node` for a log; the answer goes to `answer`.
    pub(super) fn read_log(&mut self, node: &NodeId, mut request: LogRequest, answer: LogAnswer) {
        let id = self.last_log_id + 1;
        request.id = id;
        let asked = match self.slots.get_mut(node) {
            Some(slot) if slot.logs.try_send(request).is_ok() => &mut slot.asked,
            _ => {
                // Nobody waits any more: fine.
                let _ = answer.send(Err(CallError::NotConnected(node.clone())));
                return;
            }
        };
        self.last_log_id = id;
        asked.retain(|_, answer| !answer.is_closed());
        asked.insert(id, answer);
    }

    /// Passes on what `node` answered; an answer that nobody waits for is dropped.
    pub(super) fn log_read(&mut self, node: &NodeId, reply: LogReply) {
        if let Some(answer) = self.slots.get_mut(node).and_then(|slot| slot.asked.remove(&reply.id)) {
            let _ = answer.send(Ok(reply));
        }
    }
}
