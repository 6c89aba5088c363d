//! A full store or data directory: real file systems of a few megabytes, in mount namespaces of their own.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use lockstep_support::{in_mount_namespace, mount_small};
use lockstep_tests::{Cluster, Job, digits, wait_for};
use serde_json::Value;

/// Weights and momentum of this job take 1.2 MB, more than the store has left.
const LARGE: [&str; 4] = ["--set", "model.hidden=[2048]", "--set", "steps=40"];

/// A cluster of two workers and a store of 3 MB, of which the file `filler` takes 2.4 MB.
fn with_full_store(dir: &Path, limit_s: &str) -> (Cluster, Job) {
    let store = dir.join("coord/store");
    mount_small(&store, "3m");
    std::fs::write(store.join("filler"), vec![1; 2_400_000]).unwrap();
    let mut cluster = Cluster::start(dir, 0);
    for _ in 0..2 {
        cluster.add_worker_with(&[("LOCKSTEP_WORKER_SAVE_LIMIT_S", limit_s)]);
    }
    (cluster, digits(dir))
}

/// Waits until the run's last checkpoint has failed at least twice, and returns the run's document.
fn failing(cluster: &Cluster, run: &str) -> Value {
    wait_for("the last checkpoint to fail twice", || {
        let view = cluster.show(run);
        assert_eq!(view["status"].as_str().map(|status| status == "failed"), Some(false), "{view:#}");
        let failed = &view["checkpoint_failed"];
        (failed["step"] == 40 && failed["attempts"].as_u64() >= Some(2)).then_some(view)
    })
}

#[test]
fn a_full_store_fails_checkpoints_and_the_last_one_is_saved_when_there_is_room() {
    if !in_mount_namespace("a_full_store_fails_checkpoints_and_the_last_one_is_saved_when_there_is_room") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cluster, job) = with_full_store(dir.path(), "600");
    let run = cluster.submit(job.argument(), &[&LARGE[..], &["--set", "world.processes=2"]].concat());
    let view = failing(&cluster, &run);
    assert_eq!(
        (&view["status"], &view["step"], &view["alarms"]),
        (&"running".into(), &40.into(), &1.into()),
        "{view:#}"
    );
    assert_eq!(view["checkpoints"].as_array().unwrap().len(), 0, "{view:#}");
    let failed = view["failed_checkpoints"].as_array().unwrap();
    let steps: Vec<_> = failed.iter().map(|failed| failed["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [15, 30, 40], "{view:#}");
    let reason = failed[0]["reason"].as_str().unwrap();
    assert!(reason.contains("cannot write") && reason.contains("No space left on device"), "{reason}");
    let rung = cluster.rung(&run);
    assert_eq!(rung.len(), 1, "{rung:#?}");
    assert_eq!((&rung[0]["kind"], &rung[0]["since_step"]), (&"checkpoint_failed".into(), &15.into()));
    let listed = cluster.run(&["ps"]);
    assert!(listed.contains("checkpoint at step 40 failed") && listed.contains("No space left on device"), "{listed}");

    std::fs::remove_file(cluster.store().join("filler")).unwrap();
    let state = cluster.finished(&run);
    let view = cluster.show(&run);
    assert_eq!((&view["alarms"], &view["checkpoint_failed"]), (&0.into(), &Value::Null), "{view:#}");
    let shown = cluster.run(&["show", &run]);
    assert!(shown.contains("checkpoint at step 40 failed") && shown.contains(" (it was saved later)"), "{shown}");
    let made = view["checkpoints"].as_array().unwrap();
    assert_eq!((made.len(), &made[0]["step"], &made[0]["state_digest"]), (1, &40.into(), &state.into()), "{view:#}");
    let output =
        cluster.coord(&["export", made[0]["id"].as_str().unwrap(), "--to", dir.path().join("out").to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_run_whose_last_checkpoint_is_tried_again_can_be_cancelled() {
    if !in_mount_namespace("a_run_whose_last_checkpoint_is_tried_again_can_be_cancelled") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cluster, job) = with_full_store(dir.path(), "600");
    let run = cluster.submit(job.argument(), &[&LARGE[..], &["--set", "world.processes=2"]].concat());
    failing(&cluster, &run);
    assert!(!cluster.rank_pids(&run).is_empty());
    cluster.run(&["cancel", &run]);
    assert_eq!(cluster.ended(&run)["status"], "cancelled");
    wait_for("its processes to end", || cluster.rank_pids(&run).is_empty().then_some(()));
}

#[test]
fn a_run_that_cannot_save_its_last_checkpoint_is_unsaved_and_not_finished() {
    if !in_mount_namespace("a_run_that_cannot_save_its_last_checkpoint_is_unsaved_and_not_finished") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cluster, job) = with_full_store(dir.path(), "2");
    let arguments = [&["submit", job.argument(), "--follow"], &LARGE[..], &["--set", "world.processes=1"]].concat();
    let output = cluster.coord(&arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.contains("checkpoint at step 15 failed: ") && said.contains(" unsaved: process 0 on "), "{said}");
    let view = cluster.ask(&["ps"])[0].clone();
    assert_eq!((&view["status"], &view["alarms"]), (&"unsaved".into(), &1.into()), "{view:#}");
    let run = view["run"].as_str().unwrap();
    let titles = wait_for("both alarms", || {
        let titles: Vec<String> = cluster.rung(run).iter().map(|alarm| alarm["title"].to_string()).collect();
        (titles.len() == 2).then_some(titles)
    });
    assert!(titles[1].contains("its last checkpoint is lost"), "{titles:?}");
    let hints = cluster.rung(run)[1]["try"].to_string();
    assert!(hints.contains("the run has no checkpoint to resume from") && !hints.contains("retried"), "{hints}");
    wait_for("its processes to end", || cluster.rank_pids(run).is_empty().then_some(()));
}

/// With `ulimit -f`, the default action of `SIGXFSZ` would end a process with its last checkpoint in memory.
#[test]
fn a_limit_of_a_files_size_fails_checkpoints_and_ends_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    cluster.add_worker_under(&["sh", "-c", "ulimit -f 512; LOCKSTEP_WORKER_SAVE_LIMIT_S=2 exec \"$0\" \"$@\""]);
    let job = digits(dir.path());
    let output = cluster.coord(&[&["submit", job.argument(), "--follow"], &LARGE[..]].concat());
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.contains("checkpoint at step 15 failed: ") && said.contains("File too large"), "{said}");
}

/// A coordinator has two databases. On a full disk, a write to one can succeed while the other fails; acknowledged reports must survive a
/// restart.
#[test]
fn a_coordinator_that_ends_on_a_full_disk_has_lost_no_step() {
    if !in_mount_namespace("a_coordinator_that_ends_on_a_full_disk_has_lost_no_step") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("coord");
    mount_small(&data, "40m");
    mount_small(&data.join("store"), "100m");
    let mut cluster = Cluster::start(dir.path(), 2);
    // No checkpoints, because a checkpoint makes all earlier reports durable.
    let set = ["--set", "steps=100000", "--set", "checkpoint.every_steps=100000"];
    let run = cluster.submit(digits(dir.path()).argument(), &set);
    let mut reached = 300;
    for _ in 0..3 {
        cluster.reached(&run, reached);
        let filler = data.join("filler");
        let mut file = File::create(&filler).unwrap();
        for size in [4096, 512, 8, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        // The coordinator may already have ended because of the full disk.
        cluster.stop_coordinator();
        drop(file);
        std::fs::remove_file(filler).unwrap();
        cluster.restart_coordinator();
        reached = cluster.show(&run)["step"].as_u64().unwrap() + 300;
    }
    cluster.reached(&run, reached);
    cluster.run(&["cancel", &run]);
    assert_eq!(cluster.ended(&run)["status"], "cancelled");
    let record = cluster.record(&run);
    assert!(record.keys().copied().eq(1..=record.len() as u64), "a step is missing");
    assert!(record.len() as u64 >= reached);
}
