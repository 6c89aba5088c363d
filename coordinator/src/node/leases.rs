//! When each node was last heard. Only the leader knows this; it never enters the log (I6).

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_common::NodeId;
use tokio::time::Instant;

/// The nodes that count as alive, and when they were last heard.
#[derive(Debug)]
pub(super) struct Leases {
    lease: Duration,
    heard: BTreeMap<NodeId, Instant>,
}

impl Leases {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, heard: BTreeMap::new() }
    }

    /// Begins anew: every node in `alive` counts as heard now, as nobody listened before.
    pub(super) fn restart(&mut self, alive: impl IntoIterator<Item = NodeId>, now: Instant) {
        self.heard = alive.into_iter().map(|node| (node, now)).collect();
    }

    /// The node said something.
    pub(super) fn heard(&mut self, node: &NodeId, now: Instant) {
        self.heard.insert(node.clone(), now);
    }

    /// Nobody listened for so long before `now`: what nodes said meanwhile is still to be read.
    pub(super) fn slept(&mut self, gap: Duration, now: Instant) {
        self.heard.values_mut().for_each(|heard| *heard = now.min(*heard + gap));
    }

    /// The nodes whose lease has run out. Each is named once, until it is heard again.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<NodeId> {
        let lease = self.lease;
        self.heard.extract_if(.., |_, heard| now.duration_since(*heard) > lease).map(|(node, _)| node).collect()
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
        let mut leases = Leases::new(Duration::from_millis(100));
        leases.restart([node("a"), node("b")], at(0));
        leases.heard(&node("a"), at(60));
        assert!(leases.expired(at(100)).is_empty());
        assert_eq!(leases.expired(at(101)), [node("b")]);
        assert!(leases.expired(at(160)).is_empty());
        assert_eq!(leases.expired(at(161)), [node("a")]);
        assert!(leases.expired(at(1_000)).is_empty());
        leases.heard(&node("b"), at(1_000));
        leases.restart([node("b")], at(2_000));
        assert!(leases.expired(at(2_050)).is_empty());
        leases.slept(Duration::from_millis(500), at(2_600));
        assert!(leases.expired(at(2_600)).is_empty(), "nobody listened");
        assert_eq!(leases.expired(at(2_601)), [node("b")]);
    }
}
