//! Evidence: recorded steps can be re-run and compared, and a difference is named by step and tensor.

use std::process::Output;

use lockstep_support::commit;
use lockstep_tests::{Cluster, digits};
use serde_json::Value;

/// Flips a high bit of the mantissa of one weight in the second layer after step 137, in every process of a run named `struck`. The step
/// at which a low bit would first change loss or gradient norm depends on the processor.
const FAULT: &str = "struck:*:137:model/layers.1.weight:7:20";

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Runs a comparing command with `--json`; returns exit code and output.
fn compare(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, Value) {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = cluster.coord(&arguments);
    (output.status.code(), answer(&output))
}

/// The names in a list of differences.
fn names(differ: &Value) -> Value {
    differ.as_array().into_iter().flatten().map(|part| part["name"].clone()).collect()
}

#[test]
fn a_run_its_checkpoints_and_any_of_its_steps_are_made_again_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "world.processes=2", "--set", "report.fingerprints_every=10"]);
    cluster.finished(&run);

    let (code, verdict) = compare(&cluster, &["verify", &run]);
    assert_eq!((code, &verdict["equal"], &verdict["steps"]), (Some(0), &true.into(), &90.into()), "{verdict:#}");
    assert_eq!(verdict["fingerprints"], 9);
    assert_eq!(verdict["state"]["recorded"], verdict["state"]["replayed"]);
    let replay = cluster.show(verdict["replay"].as_str().unwrap());
    assert_eq!((&replay["replay_of"], replay["checkpoints"].as_array().unwrap().len()), (&run.clone().into(), 0));

    // Now on one process, from the nearest checkpoint.
    cluster.kill_worker(1);
    let checkpoint = &cluster.checkpoints(&run)[2];
    let (code, verdict) = compare(&cluster, &["verify", &checkpoint.1]);
    assert_eq!((code, &verdict["first_step"], &verdict["last_step"]), (Some(0), &31.into(), &45.into()), "{verdict:#}");
    assert_eq!(verdict["state"]["recorded"], verdict["state"]["replayed"]);
    let (code, verdict) = compare(&cluster, &["verify", &run, "--steps", "40..44"]);
    assert_eq!((code, &verdict["steps"], &verdict["state"]), (Some(0), &5.into(), &Value::Null), "{verdict:#}");
    let replay = cluster.show(verdict["replay"].as_str().unwrap());
    assert_eq!((&replay["step"], &replay["steps"], &replay["processes"]), (&44.into(), &44.into(), &1.into()));

    for (steps, words) in [("0..3", "not within 1..90"), ("80..91", "not within 1..90"), ("9", "expected A..B")] {
        let refused = cluster.coord(&["verify", &run, "--steps", steps]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(words), "{refused:?}");
    }
    assert_eq!(cluster.coord(&["verify", "zzzz"]).status.code(), Some(4));
}

#[test]
fn one_flipped_bit_is_named_by_step_and_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    cluster.add_worker_with_fault(Some(FAULT));
    let job = digits(dir.path());
    let sets = ["--set", "steps=200", "--set", "world.processes=1", "--set", "report.fingerprints_every=100"];
    let sound = cluster.submit(job.argument(), &sets);
    let struck = cluster.submit(job.argument(), &[&sets[..], &["--set", "name=struck"]].concat());
    assert_ne!(cluster.finished(&sound), cluster.finished(&struck));

    let (code, found) = compare(&cluster, &["diff", &sound, &struck, "--bisect"]);
    assert_eq!(code, Some(7), "{found:#}");
    let differences = found["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{differences:#?}");
    assert_eq!((&differences[0]["key"], &differences[0]["b"]), (&"name".into(), &"\"struck\"".into()));
    let parting = &found["record"]["parting"];
    assert_eq!((&found["record"]["agreed"], &parting["step"]), (&100.into(), &138.into()), "{found:#}");
    let part = parting["parts"][0]["name"].as_str().unwrap();
    assert!(["loss", "gradient norm"].contains(&part), "{part}");
    let exact = &found["bisected"]["parting"];
    assert_eq!(
        (&exact["tensors"]["step"], &names(&exact["tensors"]["differ"])),
        (&137.into(), &serde_json::json!(["model/layers.1.weight"]))
    );
    assert_eq!(exact["parts"][0]["name"], "fingerprint", "the step's own numbers came before the fault");
    let words = String::from_utf8(cluster.coord(&["diff", &sound, &struck]).stdout).unwrap();
    assert!(words.contains("equal up to step 137, diverges at step 138") && words.contains("`--bisect`"), "{words}");

    // The faulty worker repeats its fault, so verification succeeds there; on a sound worker it fails.
    assert_eq!(compare(&cluster, &["verify", &struck]).0, Some(0));
    cluster.kill_worker(0);
    cluster.add_worker();
    let (code, verdict) = compare(&cluster, &["verify", &struck, "--steps", "130..150"]);
    assert_eq!((code, &verdict["parting"]["step"]), (Some(7), &138.into()), "{verdict:#}");
    let (code, found) = compare(&cluster, &["diff", &sound, &sound]);
    assert_eq!((code, &found["record"]["steps"]), (Some(0), &200.into()));
}

#[test]
fn runs_on_other_bytes_differ_in_their_data_before_their_loss() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let sets = ["--set", "steps=20", "--set"];
    let one = cluster.submit(job.argument(), &[&sets[..], &["world.processes=1"]].concat());
    let two = cluster.submit(job.argument(), &[&sets[..], &["world.processes=2"]].concat());
    assert_eq!(cluster.finished(&one), cluster.finished(&two));
    let bytes = |run: &str| -> Vec<Value> {
        let metrics: Value = serde_json::from_str(&cluster.run(&["show", run, "--metrics", "--json"])).unwrap();
        metrics["steps"].as_array().unwrap().iter().map(|step| step["sample_bytes"].clone()).collect()
    };
    assert_eq!(bytes(&one), bytes(&two), "on any number of processes");
    assert!(bytes(&one).len() == 20 && bytes(&one).iter().all(Value::is_string), "{:?}", bytes(&one));

    // Change one label: neither an input nor a sample's position changes.
    let path = dir.path().join("digits.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, row) = text.lines().next().zip(text.lines().nth(1)).unwrap();
    let label = head.split(',').position(|name| name == "label").unwrap();
    let mut cells: Vec<&str> = row.split(',').collect();
    cells[label] = if cells[label] == "3" { "4" } else { "3" };
    std::fs::write(&path, text.replacen(row, &cells.join(","), 1)).unwrap();
    let other = cluster.submit(job.argument(), &[&sets[..], &["world.processes=1"]].concat());
    cluster.finished(&other);
    let (code, found) = compare(&cluster, &["diff", &one, &other]);
    let parting = &found["record"]["parting"];
    assert_eq!((code, &names(&parting["parts"])[0]), (Some(7), &"sample bytes".into()), "{found:#}");
    let step = parting["step"].as_u64().unwrap() as usize;
    assert_eq!(bytes(&one)[..step - 1], bytes(&other)[..step - 1]);
    let words = String::from_utf8(cluster.coord(&["diff", &one, &other]).stdout).unwrap();
    assert!(words.contains("sample bytes"), "{words}");
}

#[test]
fn a_gradient_that_one_rank_computed_wrongly_is_named_by_its_rank() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    for _ in 0..2 {
        cluster.add_worker_with_fault(Some("struck:*@1:40:rank/2:11:22"));
    }
    let job = digits(dir.path());
    let sets = ["--set", "name=struck", "--set", "world.processes=2", "--set", "report.fingerprints_every=10"];
    let run = cluster.submit(job.argument(), &sets);
    cluster.finished(&run);
    // All replicas applied the wrong gradient, so comparing replicas cannot detect it.
    assert_eq!(cluster.show(&run)["corruptions"], serde_json::json!([]));
    // The replay has the same job name, so it needs a worker without the fault.
    cluster.kill_worker(0);
    cluster.kill_worker(1);
    cluster.add_worker();
    let (code, verdict) = compare(&cluster, &["verify", &run]);
    let parting = &verdict["parting"];
    assert_eq!((code, &parting["step"], &parting["tensors"]["step"]), (Some(7), &40.into(), &40.into()), "{verdict:#}");
    assert_eq!(parting["tensors"]["ranks"], serde_json::json!([2]), "{verdict:#}");
    let said = cluster.coord(&["verify", &run]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(text.contains("at step 40, the gradient of rank 2 of 4"), "{text}");
}

#[test]
fn runs_of_two_commits_differ_in_the_lines_that_were_changed() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let code = dir.path().join("code");
    std::fs::create_dir(&code).unwrap();
    let job = digits(&code);
    commit(&code, "a");
    let a = cluster.submit(job.argument(), &["--set", "steps=3"]);
    std::fs::write(code.join("notes"), "one\ntwo\n").unwrap();
    commit(&code, "b");
    let b = cluster.submit(job.argument(), &["--set", "steps=3"]);
    cluster.finished(&a);
    cluster.finished(&b);
    let (exit, found) = compare(&cluster, &["diff", &a, &b]);
    assert_eq!(exit, Some(0), "other code, the same bits: {found:#}");
    assert_eq!(found["differences"][0]["key"], "commit");
    assert_eq!(found["changes"]["files"], serde_json::json!([{"path": "notes", "added": 2, "removed": 0}]));
    let shown = cluster.coord(&["diff", &a, &b, "--patch"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("+++ b/notes") && text.contains("\n+two"), "{text}");
}
