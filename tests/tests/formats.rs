//! A coordinator's directory from version 0.1.0: the current coordinator starts on it, resumes from its checkpoint and verifies its
//! run. `tests/data/README.md` describes the directory.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::path::Path;
use std::process::Command;

use lockstep_support::{binary, printed, repository};
use lockstep_tests::{Cluster, wait_for};

/// Final state of the finished run, as 0.1.0 computed it.
const FINAL: &str = "9573bb0832b8ca42aa384c70f57cd850e65b55f766676426ca1446680507106c";
/// The finished run.
const FINISHED: &str = "h215bywd55";
/// A run that was cancelled, tagged and annotated.
const CANCELLED: &str = "brh9y0rdge";
/// A queued run that needs three devices.
const QUEUED: &str = "q0ggrsx8vk";

fn unpack(into: &Path) {
    let archive = repository().join("tests/data/format-6.tar.gz");
    printed(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into));
}

#[test]
fn a_directory_of_format_6_starts_resumes_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let mut cluster = Cluster::start(dir.path(), 0);
    let copy = dir.path().join("coord/state.format-6.redb");
    let kept = std::fs::read(&copy).expect("the earlier state is kept beside");

    let status = |cluster: &Cluster, run| cluster.show(run)["status"].as_str().unwrap().to_owned();
    assert_eq!(status(&cluster, FINISHED), "finished");
    assert_eq!(status(&cluster, CANCELLED), "cancelled");
    assert_eq!(status(&cluster, QUEUED), "queued");
    assert_eq!(cluster.show(CANCELLED)["tags"], serde_json::json!(["kept"]));
    assert_eq!(cluster.show(CANCELLED)["note"], "a note");
    assert_eq!(cluster.record(FINISHED).len(), 30);
    let checkpoints = cluster.checkpoints(FINISHED);
    assert_eq!(checkpoints.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [10, 20, 30]);

    // A second start finds the current format, and does not touch the copy.
    cluster.kill_coordinator();
    std::fs::write(&copy, b"").unwrap();
    cluster.restart_coordinator();
    assert_eq!(std::fs::read(&copy).unwrap(), b"");

    cluster.run(&["cancel", QUEUED]);
    wait_for("the lease of the node of those days to end", || {
        cluster.ask(&["nodes"]).as_array()?.iter().all(|node| node["alive"] == false).then_some(())
    });
    cluster.add_worker();
    cluster.add_worker();
    let resumed = cluster.resume(&checkpoints[1].1);
    assert_eq!(cluster.finished(&resumed), FINAL);
    let verified = cluster.run(&["verify", FINISHED]);
    assert!(verified.contains("30"), "{verified}");
    // New checkpoints have the current format; earlier ones keep their format and ids.
    let manifest = |id: &str| {
        let text: serde_json::Value = serde_json::from_str(&cluster.run(&["manifest", id])).unwrap();
        text["format"].as_u64().unwrap()
    };
    assert_eq!(manifest(&checkpoints[1].1), 4);
    assert_eq!(manifest(&cluster.checkpoints(&resumed).last().unwrap().1), 5);

    // The copy is a complete state of format 6. Restored together with the reports of its time, it is read again, without later changes.
    cluster.kill_coordinator();
    std::fs::write(dir.path().join("coord/state.redb"), kept).unwrap();
    let said = refused(dir.path(), &dir.path().join("coord/store"));
    assert!(said.contains("it is newer than `state.redb` beside it"), "{said}");
    let then = tempfile::tempdir().unwrap();
    unpack(then.path());
    std::fs::copy(then.path().join("coord/reports.redb"), dir.path().join("coord/reports.redb")).unwrap();
    cluster.restart_coordinator();
    assert_eq!(cluster.ask(&["ps"]).as_array().unwrap().len(), 3);
}

/// A directory of format 6 contains no store id. A store without any of its checkpoints is taken for one that is not mounted.
#[test]
fn an_empty_store_is_not_taken_for_that_of_format_6() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let said = refused(dir.path(), &dir.path().join("empty"));
    assert!(said.contains("holds no checkpoint of this coordinator's"), "{said}");
}

#[test]
fn half_a_state_file_is_refused_by_name_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let state = dir.path().join("coord/state.redb");
    let whole = std::fs::read(&state).unwrap();
    std::fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    let said = refused(dir.path(), &dir.path().join("coord/store"));
    assert!(said.contains("state.redb"), "{said}");
    assert_eq!(std::fs::read(&state).unwrap().len(), whole.len() / 2);
}

/// Starts a coordinator that must refuse to start, and returns its standard error.
fn refused(dir: &Path, store: &Path) -> String {
    // `timeout` ends a coordinator that starts although it should not.
    let output = Command::new("timeout")
        .arg("30")
        .arg(binary("coord"))
        .args(["serve", "--listen", "127.0.0.1:0", "--web-listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.join("coord"))
        .arg("--store")
        .arg(store)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
