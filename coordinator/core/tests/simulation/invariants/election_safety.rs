//! Invariant: a term has at most one leader.

use std::collections::BTreeMap;

use lockstep_core::replica::Leadership;

#[derive(Default)]
pub(crate) struct ElectionSafety {
    leader_of: BTreeMap<u64, u64>,
}

impl ElectionSafety {
    /// Number of terms that had a leader.
    pub(crate) fn leaders(&self) -> usize {
        self.leader_of.len()
    }

    pub(crate) fn observe(&mut self, node: u64, leadership: Leadership) {
        if leadership.is_self {
            let leader = *self.leader_of.entry(leadership.term).or_insert(node);
            assert_eq!(leader, node, "two leaders in term {}", leadership.term);
        }
    }
}
