//! Invariant: checkpoints and progress come from the generation that the state says, and never from an ended one.

use std::collections::BTreeSet;

use lockstep_common::Digest;
use lockstep_core::ClusterState;

use crate::blobs;

/// Checks every run. Throughput and `consumed` samples contain the generation that reported them (`super::super::clients`).
///
/// `seen`: checkpoints whose manifests were already checked.
pub(crate) fn check(state: &ClusterState, seen: &mut BTreeSet<Digest>) {
    for run in state.runs() {
        let generation = run.state.generation;
        if let Some(progress) = &run.state.progress {
            let of = progress.samples_per_second as u64;
            assert_eq!(of, generation, "run `{}` has progress of another generation", run.id());
        }
        let mut before = 0;
        for made in run.checkpoints.values() {
            assert!((before..=generation).contains(&made.generation), "run `{}`: {made:?}", run.id());
            before = made.generation;
            if !seen.insert(made.id) {
                continue;
            }
            let manifest = blobs::manifest(&made.manifest);
            let of = manifest.ranks.iter().map(|rank| rank.consumed);
            assert!(
                of.clone().all(|of| of == made.generation),
                "a checkpoint of generations {:?}",
                of.collect::<Vec<_>>()
            );
        }
        let ready = run.state.placement.values().filter_map(|placed| placed.address.as_ref());
        let own = format!("{}:{generation}:", run.id());
        assert!(ready.clone().all(|address| address.starts_with(&own)), "{own}: {:?}", ready.collect::<Vec<_>>());
    }
}
