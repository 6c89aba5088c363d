//! Silent corruption: a process whose copy of the state changed by itself is found, named and left out, and the run ends
//! with the bits that it would have had.

use lockstep_tests::{Cluster, Job, digits, wait_for};
use serde_json::{Value, json};

const SETS: [&str; 4] = ["--set", "name=struck", "--set", "report.fingerprints_every=10"];

/// Workers with these faults, and a run on all of them.
fn strike(cluster: &mut Cluster, job: &Job, faults: &[Option<&str>]) -> String {
    for fault in faults {
        cluster.add_worker_with_fault(*fault);
    }
    let processes = format!("world.processes={}", faults.len());
    cluster.submit(job.argument(), &[&SETS[..], &["--set", &processes]].concat())
}

/// Nodes with a fenced device.
fn fenced(cluster: &Cluster) -> Vec<Value> {
    let nodes = cluster.ask(&["nodes"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_fenced = |node: &Value| list(&node["devices"]).iter().any(|device| !device["fenced"].is_null());
    list(&nodes).into_iter().filter(is_fenced).map(|node| node["id"].clone()).collect()
}

/// The final state and record of `run`, and those of the same job where nothing goes wrong.
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
    // Once: in the first generation only.
    let run = strike(&mut cluster, &job, &[None, Some("struck:*@1:37:model/layers.0.bias:3:20")]);
    compare_with_sound(&cluster, &job, &run);
    let view = cluster.show(&run);
    let corruptions = view["corruptions"].as_array().unwrap();
    assert_eq!(corruptions.len(), 1, "{view:#}");
    let found = &corruptions[0];
    // Found at 40, agreed at the checkpoint at 34: so it went back no further.
    assert_eq!((&found["step"], &found["agreed"]), (&40.into(), &34.into()), "{found:#}");
    assert_eq!(found["tensors"][0], "model/layers.0.bias");
    assert_eq!(found["verdict"], json!({"wrong": [1], "grounds": "replay"}), "{found:#}");
    assert_eq!(found["claims"][1]["node"], "node-1");
    assert_eq!(fenced(&cluster), [json!("node-1")]);
    assert_eq!(view["placement"].as_array().unwrap().len(), 1, "it went on without the wrong device");
    let shown = cluster.coord(&["show", &run]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("wrong was process 1 on `cpu` of `node-1`: the steps were made again"), "{text}");

    let alarms = cluster.document(&format!("/api/runs/{run}/alarms"));
    assert_eq!(alarms.as_array().unwrap().len(), 1, "{alarms:#}");
    let alarm = json!([alarms[0]["kind"], alarms[0]["since_step"], alarms[0]["until_step"], alarms[0]["place"]]);
    assert_eq!(alarm, json!(["replica_mismatch", 34, 40, "`model/layers.0.bias`, process 1"]));
    // Who is to hear of it heard of it when it was found, and when it was known who was wrong.
    let rung = wait_for("the hook", || Some(cluster.rung(&run)).filter(|rung| rung.len() >= 2));
    assert_eq!(rung.iter().map(|alarm| &alarm["until_step"]).collect::<Vec<_>>(), [&Value::Null, &40.into()]);
    assert_eq!(rung[1], alarms[0]);
    // Whoever was told of it is not told again by a coordinator that starts anew; what follows gives it the time to.
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
    // Whenever it comes to that step there.
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
    for part in ["silent corruption: after step 40", "all agreed after step 34", "each device stands by what it had"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(fenced(&cluster).is_empty());
    // A person knows, takes it out, and goes on from the last checkpoint, which is of a step at which all agreed.
    assert!(cluster.coord(&["fence", "node-1"]).status.success());
    let (step, checkpoint) = cluster.checkpoints(&run).last().unwrap().clone();
    // The run may end while the coordinator still opens the blobs of step 34: then the last one is that of step 17.
    assert!([17, 34].contains(&step), "{step}");
    let resumed = cluster.resume(&checkpoint);
    let sound = cluster.submit(job.argument(), &["--set", "world.processes=1"]);
    assert_eq!(cluster.finished(&resumed), cluster.finished(&sound));
}
