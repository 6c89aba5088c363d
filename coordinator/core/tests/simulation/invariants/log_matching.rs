//! Invariant: entries with the same index and term are equal in all logs at all times, and have equal effects.

use std::collections::BTreeMap;

use lockstep_common::{Digest, Domain};
use lockstep_core::Effect;
use lockstep_core::replica::Persist;

#[derive(Default)]
pub(crate) struct LogMatching {
    entries: BTreeMap<(u64, u64), Digest>,
    effects: BTreeMap<u64, Vec<Effect>>,
}

impl LogMatching {
    pub(crate) fn observe(&mut self, persist: &Persist) {
        for entry in &persist.entries {
            let digest = Domain::Blob.digest(&entry.data);
            let known = self.entries.entry((entry.index, entry.term)).or_insert(digest);
            assert_eq!(*known, digest, "entry {} of term {} differs", entry.index, entry.term);
        }
        let mut by_index: BTreeMap<u64, Vec<Effect>> = BTreeMap::new();
        for (index, effect) in &persist.effects {
            by_index.entry(*index).or_default().push(effect.clone());
        }
        for (index, effects) in by_index {
            let known = self.effects.entry(index).or_insert_with(|| effects.clone());
            assert_eq!(*known, effects, "the effects of entry {index} differ");
        }
    }
}
