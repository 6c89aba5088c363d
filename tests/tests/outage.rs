//! A long outage of the coordinator, during which a worker has more reports than its spool may contain.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lockstep_support::wait_within;
use lockstep_tests::{Cluster, digits, wait_for};

/// Bytes of all files below `dir`.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let of = |entry: fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() { bytes_below(&path) } else { entry.metadata().map_or(0, |metadata| metadata.len()) }
    };
    entries.flatten().map(of).sum()
}

#[test]
fn in_a_long_outage_the_oldest_telemetry_goes_and_is_counted_and_no_step_of_the_record() {
    const BOUND: u64 = 8 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    cluster.add_worker_with(&[("LOCKSTEP_WORKER_SPOOL_BYTES", &BOUND.to_string())]);
    let job = digits(dir.path());
    let sets = ["--set", "steps=7000", "--set", "checkpoint.every_steps=0", "--set", "world.processes=1"];
    let much = ["--set", "report.histograms_every=2", "--set", "report.layer_norms_every=1"];
    let run = cluster.submit(job.argument(), &[&sets[..], &much].concat());
    cluster.reached(&run, 100);
    cluster.kill_coordinator();
    let spool = dir.path().join("node-0/spool");
    let mut most = 0;
    // The spool grew to its bound, and the agent dropped telemetry.
    wait_within(Duration::from_mins(3), "the spool to be cut back", || {
        let now = bytes_below(&spool);
        most = most.max(now);
        (now < most.saturating_sub(1 << 20) && most >= BOUND).then_some(())
    });
    cluster.restart_coordinator();
    cluster.finished_within(&run, Duration::from_mins(4));
    assert!(most < BOUND + (9 << 20), "{most}");

    let record = cluster.ask(&["show", &run, "--metrics"]);
    let steps = record["steps"].as_array().unwrap().iter().map(|step| step["step"].as_u64().unwrap());
    assert!(steps.eq(1..=7_000), "every step is in the record, once");
    let series = wait_for("the last step's numbers", || {
        let series = cluster.document(&format!("/api/runs/{run}/series"));
        let loss = series["series"].as_array()?.iter().find(|one| one["name"] == "loss")?.clone();
        (loss["last_step"] == 7_000 && loss["count"] == 7_000).then_some(series)
    });
    let dropped = series["dropped"].as_u64().unwrap();
    assert!(dropped > 1000, "what is gone is counted: {dropped}");
    // Steps that were reported after the outage are correct.
    cluster.run(&["verify", &run, "--steps", "1..1000"]);
}
