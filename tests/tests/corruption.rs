//! Silent corruption: the run detects a process whose copy of the state has changed, names it, continues without it, and ends with
//! the bits of an undisturbed run.

use lockstep_tests::{Cluster, Job, digits, wait_for};
use serde_json::{Value, json};

const SETS: [&str; 4] = ["--set", "name=struck", "--set", "report.fingerprints_every=10"];

/// Starts workers with these faults, and submits a run on all of them.
fn strike(cluster: &mut Cluster, job: &Job, faults: &[Option<&str>]) -> String {
    for fault in faults {
        cluster.add_worker_with_fault(*fault);
    }
    let processes = format!("world.processes={}", faults.len());
    cluster.submit(job.argument(), &[&SETS[..], &["--set", &processes]].concat())
}

/// Names of the nodes with a fenced device.
fn fenced(cluster: &Cluster) -> Vec<Value> {
    let nodes = cluster.ask(&["nodes"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_fenced = |node: &Value| list(&node["devices"]).iter().any(|device| !device["fenced"].is_null());
    list(&nodes).into_iter().filter(is_fenced).map(|node| node["id"].clone()).collect()
}

/// Compares final state and record of `run` with those of the same job on a sound worker.
fn compare_with_sound(cluster: &Cluster, job: &Job, run: &str) {
    let state = cluster.finished(run);
    let record = cluster.record(run);
    let sound =
        cluster.submit(job.argument(), &["--set", "world.processes=1", "--set", "report.fingerprints_every=10"]);
    assert_eq!(cluster.finished(&sound), state);
    assert_eq!(cluster.record(&sound), record, "every step once, with the right bits");
}

#[test]
fn of_two_processes_the_wrong_one_is_found_by_making_the_steps_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    let job = digits(dir.path());
    // The fault happens once, in the first generation.
    let run = strike(&mut cluster, &job, &[None, Some("struck:*@1:37:model/layers.0.bias:3:20")]);
    compare_with_sound(&cluster, &job, &run);
    let view = cluster.show(&run);
    let corruptions = view["corruptions"].as_array().unwrap();
    assert_eq!(corruptions.len(), 1, "{view:#}");
    let found = &corruptions[0];
    // Detected at step 40; replicas agreed at the checkpoint of step 34, so no earlier step was re-run.
    assert_eq!((&found["step"], &found["agreed"]), (&40.into(), &30.into()), "{found:#}");
    assert_eq!(found["tensors"][0], "model/layers.0.bias");
    assert_eq!(found["verdict"], json!({"wrong": [1], "grounds": "replay"}), "{found:#}");
    assert_eq!(found["claims"][1]["node"], "node-1");
    assert_eq!(fenced(&cluster), [json!("node-1")]);
    assert_eq!(view["placement"].as_array().unwrap().len(), 1, "it continued without the wrong device");
    let shown = cluster.coord(&["show", &run]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("wrong: process 1 on `cpu` of `node-1` (a re-run of the steps gave other bits)"), "{text}");

    let alarms = cluster.document(&format!("/api/runs/{run}/alarms"));
    assert_eq!(alarms.as_array().unwrap().len(), 1, "{alarms:#}");
    let alarm = json!([alarms[0]["kind"], alarms[0]["since_step"], alarms[0]["until_step"], alarms[0]["place"]]);
    assert_eq!(alarm, json!(["replica_mismatch", 30, 40, "`model/layers.0.bias`, process 1"]));
    // The alarm command ran at the detection, and again at the verdict.
    let rung = wait_for("the hook", || Some(cluster.rung(&run)).filter(|rung| rung.len() >= 2));
    assert_eq!(rung.iter().map(|alarm| &alarm["until_step"]).collect::<Vec<_>>(), [&Value::Null, &40.into()]);
    assert_eq!(rung[1], alarms[0]);
    // A restarted coordinator must not run the command again; the last line of this test checks it.
    cluster.kill_coordinator();
    cluster.restart_coordinator();

    let nodes = cluster.coord(&["nodes"]);
    let words = format!("fenced: wrong at step 40 of {run}");
    assert!(String::from_utf8_lossy(&nodes.stdout).contains(&words), "{nodes:?}");
    assert!(cluster.coord(&["unfence", "node-1", "cpu"]).status.success());
    assert!(fenced(&cluster).is_empty());
    let unknown = cluster.coord(&["fence", "node-9"]);
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
    assert_eq!(cluster.rung(&run).len(), 2);
}

#[test]
fn of_three_processes_the_wrong_one_is_left_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    let job = digits(dir.path());
    // The fault happens at this step in every generation on this worker.
    let fault = Some("struck:*:37:optimizer/momentum/layers.1.weight:3:20");
    let run = strike(&mut cluster, &job, &[None, fault, None]);
    compare_with_sound(&cluster, &job, &run);
    let view = cluster.show(&run);
    assert_eq!(view["corruptions"][0]["verdict"], json!({"wrong": [1], "grounds": "majority"}), "{view:#}");
    assert_eq!((&view["generation"], view["corruptions"].as_array().unwrap().len()), (&2.into(), 1));
    assert_eq!(fenced(&cluster), [json!("node-1")]);
}

#[test]
fn two_devices_that_both_stand_by_what_they_had_end_the_run_and_nothing_wrong_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    let job = digits(dir.path());
    let run = strike(&mut cluster, &job, &[None, Some("struck:*:37:model/layers.0.bias:3:20")]);
    let view = cluster.ended(&run);
    let reason = view["reason"].as_str().unwrap();
    for part in
        ["silent corruption: ", "differ after step 40 (equal after step 30)", "a re-run gave the same fingerprints"]
    {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(fenced(&cluster).is_empty());
    // A person fences the device and resumes from the last checkpoint, at whose step all replicas agreed.
    assert!(cluster.coord(&["fence", "node-1"]).status.success());
    let (step, checkpoint) = cluster.checkpoints(&run).last().unwrap().clone();
    // If the run ends while the coordinator still opens the blobs of step 34, the last checkpoint is that of step 17.
    assert!([15, 30].contains(&step), "{step}");
    let resumed = cluster.resume(&checkpoint);
    let sound = cluster.submit(job.argument(), &["--set", "world.processes=1"]);
    assert_eq!(cluster.finished(&resumed), cluster.finished(&sound));
}
