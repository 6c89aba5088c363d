//! The state as rows, and rows that are no state.

use lockstep_common::{Digest, Domain};
use lockstep_core::state::StateError;
use lockstep_core::{ClusterState, Outcome, Said};

use super::cluster::{Cluster, block, ready, share};

fn busy() -> Cluster {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    cluster.say(&run, 0, block(7));
    cluster.say(&run, 0, Said::Share(share(0, 2, 8)));
    cluster.submit(&["name=waits"]);
    cluster
}

#[test]
fn a_state_made_of_its_rows_goes_on_as_the_first_one_would() {
    let mut first = busy();
    let mut again = busy();
    again.state = ClusterState::from_rows(first.store()).unwrap();
    let run = first.state.runs()[0].id().clone();
    for cluster in [&mut first, &mut again] {
        cluster.say(&run, 1, Said::Share(share(1, 2, 8)));
        cluster.open();
        cluster.exit(&run, 1, "x");
        cluster.say(&run, 0, ready(0, "avx2"));
        assert_eq!(cluster.run(&run).checkpoints.len(), 2);
    }
    assert_eq!(first.store(), again.store());
}

#[test]
fn a_report_rewrites_one_small_row() {
    let mut cluster = busy();
    let run = cluster.state.runs()[0].id().clone();
    let before = cluster.store();
    cluster.say(&run, 1, Said::Block { progress: None, bytes: vec![0; 1000] });
    let after = cluster.store();
    let changed: Vec<_> = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).collect();
    assert_eq!(changed.len(), 1, "{:?}", changed.iter().map(|(key, _)| key).collect::<Vec<_>>());
    assert!(changed[0].1.len() < 1500, "{} bytes", changed[0].1.len());
}

#[test]
fn damaged_rows_are_refused_by_key_and_never_panic() {
    let rows = busy().store();
    for key in rows.keys() {
        for length in [0, 1, rows[key].len() / 2, rows[key].len() - 1] {
            let mut damaged = rows.clone();
            damaged.get_mut(key).unwrap().truncate(length);
            let error = ClusterState::from_rows(damaged).expect_err(key).to_string();
            assert!(error.contains(key.as_str()), "{error}");
        }
    }
    let refused = |key: &str| ClusterState::from_rows([(key.to_owned(), Vec::new())]).unwrap_err();
    for key in ["", "run", "run/x", "thing/0123456789", "checkpoint/0123456789/5", "node/../x"] {
        assert!(matches!(refused(key), StateError::Key { .. }), "{key}");
    }
}

#[test]
fn rows_that_need_others_are_refused_without_them() {
    let rows = busy().store();
    let without = |kind: &str| {
        let kept = rows.iter().filter(|(key, _)| !key.starts_with(kind));
        ClusterState::from_rows(kept.map(|(key, value)| (key.clone(), value.clone())))
    };
    for kind in ["submission/", "run/"] {
        assert!(matches!(without(kind), Err(StateError::Contradiction { .. })), "{kind}");
    }
}

/// Stores hold these bytes. The rows that hold a job's text are left out, as that has a format of its own. A new field with a
/// default changes the digest and nothing else; any other change needs a new format of the store and a reader for the one before
/// ([`lockstep_core::formats`]).
#[test]
fn the_format_of_rows_is_frozen() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    let other = cluster.submit(&[]);
    assert_eq!(cluster.cancel(&other), Outcome::Done);
    cluster.exit(&run, 0, "killed");
    cluster.all_ready(&run);
    cluster.say(&run, 0, block(7));
    cluster.say(&run, 1, Said::ShareFailed { step: 6, reason: "disk full".into() });
    cluster.say(&run, 0, Said::Share(share(0, 2, 8)));
    cluster.lose("b", "0");
    let mut hasher = Domain::Blob.hasher();
    for (key, value) in cluster.store().iter().filter(|(key, _)| !key.starts_with("submission/")) {
        hasher.update(key.as_bytes()).update(&(value.len() as u64).to_le_bytes()).update(value);
    }
    assert_eq!(Digest::of(&hasher).to_hex(), "7e4dd78500d8159a394aed6bd8c061352891f8ff0f46d823ea3e30ce45c1c872");
}
