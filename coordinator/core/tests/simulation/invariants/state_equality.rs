//! Invariant: replicas that have applied the same entries have equal states.

use std::collections::BTreeMap;

use lockstep_common::{Digest, Domain};
use lockstep_core::ClusterState;

#[derive(Default)]
pub(crate) struct StateEquality {
    digests: BTreeMap<u64, (u64, Digest)>,
}

impl StateEquality {
    pub(crate) fn observe(&mut self, node: u64, applied_index: u64, state: &ClusterState) {
        let mut hasher = Domain::Blob.hasher();
        for (key, value) in state.rows() {
            hasher.update(key.as_bytes()).update(&(value.len() as u64).to_le_bytes()).update(&value);
        }
        let digest = Digest::of(&hasher);
        let (first, known) = *self.digests.entry(applied_index).or_insert((node, digest));
        assert_eq!(known, digest, "replicas {first} and {node} differ after entry {applied_index}");
    }
}
