//! Rows of the state, and rows that are not a valid state.

use lockstep_common::{Digest, Domain};
use lockstep_core::state::StateError;
use lockstep_core::{ClusterState, Outcome, ReportBody};

use super::cluster::{Cluster, block, ready, share, written};

fn busy() -> Cluster {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    cluster.say(&run, 0, block(7));
    cluster.say(&run, 0, written(&share(0, 2, 8)));
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
        cluster.say(&run, 1, written(&share(1, 2, 8)));
        cluster.open();
        cluster.exit(&run, 1, "x");
        cluster.say(&run, 0, ready(0, "avx2"));
        assert_eq!(cluster.run(&run).checkpoints.len(), 2);
    }
    assert_eq!(first.store(), again.store());
}

#[test]
fn a_report_rewrites_two_small_rows() {
    let mut cluster = busy();
    let run = cluster.state.runs()[0].id().clone();
    let before = cluster.store();
    cluster.say(&run, 1, ReportBody::Block { progress: None, bytes: vec![0; 1000] });
    let after = cluster.store();
    let changed: Vec<_> = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).collect();
    let keys: Vec<&String> = changed.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [&format!("progress/{run}"), &format!("reported/{run}/0000000001")]);
    assert!(changed.iter().map(|(_, value)| value.len()).sum::<usize>() < 200);
}

#[test]
fn damaged_rows_are_refused_by_key_and_never_panic() {
    let rows = busy().store();
    for key in rows.keys() {
        let whole = rows[key].len();
        for length in [0, 1, whole / 2, whole - 1].into_iter().filter(|length| *length < whole) {
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
    for kind in ["submission/", "run/", "measured/", "progress/", "process/", "reported/"] {
        assert!(matches!(without(kind), Err(StateError::Contradiction { .. })), "{kind}");
    }
}

/// Each of these rows is valid alone.
#[test]
fn checkpoints_of_another_time_are_refused_by_key() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    cluster.checkpoint(&run, 8);
    let rows = cluster.store();
    ClusterState::from_rows(rows.clone()).unwrap();
    let [fifth, eighth] = [5, 8].map(|step| format!("checkpoint/{run}/{step:020}"));
    let mut other = rows.clone();
    other.insert(eighth.clone(), rows[&fifth].clone());
    let said = ClusterState::from_rows(other).unwrap_err().to_string();
    assert!(said.contains(&eighth) && said.contains("its checkpoint is of step 5"), "{said}");
    // The checkpoint that a resumed run starts from.
    let resumed = cluster.resume(cluster.run(&run).checkpoints[&5].id);
    let key = format!("run/{}", resumed.unwrap());
    let mut rows = cluster.store();
    rows.remove(&fifth);
    let said = ClusterState::from_rows(rows).unwrap_err().to_string();
    assert!(said.contains(&key) && said.contains("from which the run starts, is missing"), "{said}");
}

/// Databases contain these bytes. Rows with a job's text are left out, because the job has a format of its own. A new field with a default
/// changes only the digest. Any other change needs a new format of the state, and a reader for the previous format
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
    cluster.say(&run, 1, ReportBody::ShareFailed { step: 6, reason: "disk full".into() });
    cluster.say(&run, 0, written(&share(0, 2, 8)));
    cluster.lose("b", "0");
    let mut hasher = Domain::Blob.hasher();
    for (key, value) in cluster.store().iter().filter(|(key, _)| !key.starts_with("submission/")) {
        hasher.update(key.as_bytes()).update(&(value.len() as u64).to_le_bytes()).update(value);
    }
    assert_eq!(Digest::of(&hasher).to_hex(), "db99df7c706212d96f13182e97118ec02b9b3ed233c82b1e4bf204734b0f3777");
}
