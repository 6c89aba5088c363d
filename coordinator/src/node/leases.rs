//! The time of each node's last message. Only the leader knows it; it never enters the log (I6).
//!
//! It is the time of receipt, set by the task that reads the node's stream. So a busy event loop does not let a lease expire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_common::NodeId;
use tokio::time::Instant;

/// The time of the last message of each node that may be running. Clones share one table.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    lease: Duration,
    heard: Arc<Mutex<BTreeMap<NodeId, Instant>>>,
}

impl Leases {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, heard: Arc::default() }
    }

    /// Replaces the table: the lease of every node in `there` starts at `now`, and other nodes have none.
    pub(super) fn restart(&self, there: impl IntoIterator<Item = NodeId>, now: Instant) {
        *self.heard_by_node() = there.into_iter().map(|node| (node, now)).collect();
    }

    /// Restarts the node's lease.
    pub(super) fn heard(&self, node: &NodeId, now: Instant) {
        self.heard_by_node().insert(node.clone(), now);
    }

    /// The nodes whose lease has expired. Each is returned once, until its lease restarts.
    pub(super) fn expired(&self, now: Instant) -> Vec<NodeId> {
        let lease = self.lease;
        let mut heard = self.heard_by_node();
        heard.extract_if(.., |_, heard| now.saturating_duration_since(*heard) > lease).map(|(node, _)| node).collect()
    }

    fn heard_by_node(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_beyond_the_lease_is_named_once_and_a_restart_forgives() {
        let node = |name: &str| name.parse::<NodeId>().unwrap();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let leases = Leases::new(Duration::from_millis(100));
        leases.restart([node("a"), node("b")], at(0));
        leases.heard(&node("a"), at(60));
        assert!(leases.expired(at(100)).is_empty());
        assert_eq!(leases.expired(at(101)), [node("b")]);
        assert!(leases.expired(at(160)).is_empty());
        assert_eq!(leases.expired(at(161)), [node("a")]);
        assert!(leases.expired(at(1_000)).is_empty());
        leases.heard(&node("b"), at(1_000));
        leases.restart([node("b")], at(2_000));
        assert!(leases.expired(at(2_100)).is_empty());
        assert_eq!(leases.expired(at(2_101)), [node("b")]);
    }
}
