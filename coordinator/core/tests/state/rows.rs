//! The state as rows, and rows that are no state.

use std::collections::BTreeMap;

use lockstep_common::{Digest, Domain};
use lockstep_core::state::StateError;
use lockstep_core::{ClusterState, Outcome, ReportBody};

use super::cluster::{Cluster, block, ready, share};

type Rows = BTreeMap<String, Vec<u8>>;

fn busy() -> Cluster {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    cluster.say(&run, 0, block(7));
    cluster.say(&run, 0, ReportBody::Share(share(0, 2, 8)));
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
        cluster.say(&run, 1, ReportBody::Share(share(1, 2, 8)));
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
    cluster.say(&run, 1, ReportBody::Block { progress: None, bytes: vec![0; 1000] });
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

/// Each of these rows is as it was written.
#[test]
fn checkpoints_of_another_time_run_or_job_are_refused_by_key() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    let before = cluster.store();
    cluster.checkpoint(&run, 8);
    let rows = cluster.store();
    let [fifth, eighth] = [5, 8].map(|step| format!("checkpoint/{run}/{step:020}"));
    let refused = |change: &dyn Fn(&mut Rows), key: &str, words: &str| {
        let mut changed = rows.clone();
        change(&mut changed);
        let said = ClusterState::from_rows(changed).unwrap_err().to_string();
        assert!(said.contains(&format!("`{key}`")) && said.contains(words), "{said}");
    };
    ClusterState::from_rows(rows.clone()).unwrap();
    // A manifest is left out, of the first and of the last.
    let manifests = [5, 8].map(|step| (step, format!("manifest/{}", cluster.run(&run).checkpoints[&step].id)));
    let manifests = BTreeMap::from(manifests);
    let manifest_of = |step: u64| manifests[&step].clone();
    for (step, key) in [(5, &fifth), (8, &eighth)] {
        refused(&|rows| drop(rows.remove(&manifest_of(step))), key, "the row of its manifest");
    }
    // The last one's row is that of an earlier checkpoint.
    let earlier = &before[&fifth];
    refused(&|rows| drop(rows.insert(eighth.clone(), earlier.clone())), &eighth, "of another state, at step 5");
    // The run's own row is that of another job.
    let mut twin = Cluster::with_two_nodes();
    assert_eq!(twin.submit(&["name=twin"]), run);
    let submission = format!("submission/{run}");
    let of_twin = twin.store()[&submission].clone();
    refused(&|rows| drop(rows.insert(submission.clone(), of_twin.clone())), &eighth, "of another job than the run's");
    // The last checkpoint is another run's.
    twin.cancel(&run);
    let other = twin.submit(&[]);
    twin.all_ready(&other);
    let id = twin.checkpoint(&other, 8);
    let of_other = twin.store();
    let put = |rows: &mut Rows| {
        let manifest = format!("manifest/{id}");
        rows.insert(eighth.clone(), of_other[&format!("checkpoint/{other}/{:020}", 8)].clone());
        rows.insert(manifest.clone(), of_other[&manifest].clone());
    };
    refused(&put, &eighth, &format!("its manifest is of run `{other}`"));
    // What a resumed run begins from.
    let resumed = cluster.resume(cluster.run(&run).checkpoints[&5].id);
    let key = format!("run/{}", resumed.unwrap());
    let mut rows = cluster.store();
    rows.remove(&fifth);
    rows.remove(&manifest_of(5));
    let said = ClusterState::from_rows(rows).unwrap_err().to_string();
    assert!(said.contains(&key) && said.contains("the row of its manifest"), "{said}");
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
    cluster.say(&run, 1, ReportBody::ShareFailed { step: 6, reason: "disk full".into() });
    cluster.say(&run, 0, ReportBody::Share(share(0, 2, 8)));
    cluster.lose("b", "0");
    let mut hasher = Domain::Blob.hasher();
    for (key, value) in cluster.store().iter().filter(|(key, _)| !key.starts_with("submission/")) {
        hasher.update(key.as_bytes()).update(&(value.len() as u64).to_le_bytes()).update(value);
    }
    assert_eq!(Digest::of(&hasher).to_hex(), "7e4dd78500d8159a394aed6bd8c061352891f8ff0f46d823ea3e30ce45c1c872");
}
