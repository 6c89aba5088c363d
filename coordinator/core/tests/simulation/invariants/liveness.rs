//! Invariant: after the faults have ended, one leader serves, all replicas catch up, and clients get answers.

use lockstep_core::replica::Replica;

pub(crate) fn check(replicas: &[&Replica], voters: usize, answered_since: u64) {
    assert_eq!(replicas.len(), voters, "replicas are down");
    let serving = replicas.iter().filter(|replica| replica.is_serving()).count();
    assert_eq!(serving, 1, "leaders that serve");
    let applied: Vec<u64> = replicas.iter().map(|replica| replica.applied_index()).collect();
    let behind = applied.iter().max().unwrap() - applied.iter().min().unwrap();
    assert!(behind < 50, "a replica has not caught up: {applied:?}");
    assert!(answered_since > 50, "only {answered_since} answers since the faults ceased");
}
