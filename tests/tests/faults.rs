//! Injected faults in real runs: each raises an alarm that names it, and a healthy run raises none.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use lockstep_support::{binary, commit, repository, wait_within};
use lockstep_tests::{Cluster, Job, wait_for};
use serde_json::{Value, json};

/// Creates a repository whose program is `worker/examples/troubled.rs`, copied from this build.
fn project(root: &Path) -> Job {
    fs::create_dir(root).unwrap();
    fs::copy(repository().join("tests/data/digits.csv"), root.join("digits.csv")).unwrap();
    let program = binary("examples/troubled");
    let text = format!(
        r#"
            name = "troubled"
            seed = 20
            steps = 1000000
            ranks = 2
            batch = {{ size = 64 }}
            data = {{ kind = "files", paths = ["digits.csv"] }}
            optimizer = {{ kind = "sgd", lr = 0.05, momentum = 0.9 }}
            report = {{ histograms_every = 50 }}
            [program]
            bin = "./troubled"
            build = "cp {} troubled"
            parameters = {{ trouble = "none", step_ms = 6 }}
        "#,
        program.display()
    );
    let job = Job::write(root, &text);
    commit(root, "troubled");
    job
}

fn alarms(cluster: &Cluster, run: &str) -> Vec<Value> {
    cluster.document(&format!("/api/runs/{run}/alarms")).as_array().unwrap().clone()
}

/// A cluster, and a job whose parameter `trouble` selects the fault.
fn troubled(dir: &Path, workers: usize) -> (Cluster, Job) {
    let programs = dir.join("programs");
    let pass = Path::new("[\"TROUBLED_*\"]");
    let variables: &[(&str, &Path)] = &[
        ("LOCKSTEP_WORKER_PROGRAMS_DIR", &programs),
        ("CARGO_TARGET_DIR", &programs),
        ("LOCKSTEP_WORKER_ENVIRONMENT__PASS", pass),
    ];
    (Cluster::start_with(dir, workers, variables), project(&dir.join("work")))
}

/// Submits the job with fault `trouble` to two new workers. The fault `slow_process` affects the second. A step takes `step_ms`.
fn start(cluster: &mut Cluster, job: &Job, trouble: &str, step_ms: u64) -> String {
    cluster.add_worker();
    cluster.add_worker_with(&[("TROUBLED_SLOW", "1")]);
    let set = format!("program.parameters={{ trouble = {trouble:?}, step_ms = {step_ms} }}");
    let run = cluster.submit(job.argument(), &["--set", &set]);
    // Wait, so that the next run does not take these nodes.
    cluster.reached(&run, 1);
    run
}

/// Waits for an alarm of `kind` and for the alarm command, and returns the alarm.
fn found(cluster: &Cluster, run: &str, kind: &str) -> Value {
    let found = wait_within(Duration::from_mins(6), &format!("{kind} of run {run}"), || {
        alarms(cluster, run).into_iter().find(|alarm| alarm["kind"] == kind)
    });
    wait_for("the hook", || cluster.rung(run).into_iter().find(|alarm| alarm["kind"] == kind));
    found
}

fn words(alarm: &Value) -> String {
    format!("{} {} {}", alarm["title"], alarm["place"], alarm["what"])
}

#[test]
fn faults_are_found_and_named_while_a_healthy_run_beside_them_has_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, job) = troubled(dir.path(), 0);
    let healthy = start(&mut cluster, &job, "none", 6);
    // Each fault with the kind of its alarm, and a word of the alarm's text.
    let faults = [
        ("exploding_layer", "divergence", "layers.1"),
        ("dead_layer", "dead_units", "relu"),
        ("slow_process", "straggler", "process 1"),
        ("slow_loader", "data_starvation", "data"),
    ];
    let runs = faults.map(|(trouble, kind, named)| (start(&mut cluster, &job, trouble, 6), trouble, kind, named));
    for (run, trouble, kind, named) in &runs {
        let found = found(&cluster, run, kind);
        assert!(words(&found).contains(named), "{trouble}: {found:#}");
        let since = found["since_step"].as_u64().unwrap();
        // These faults begin at step 400; the alarm's first step is exact to about one measurement of distributions (every 50 steps).
        assert!(!trouble.ends_with("_layer") || (340..=500).contains(&since), "{trouble}: since {since}");
        let cancelled = cluster.coord(&["cancel", run]);
        // Growing weights may already have failed the run.
        let itself = *trouble == "exploding_layer" && cluster.show(run)["status"] == "failed";
        assert!(cancelled.status.success() || itself, "{trouble}: {cancelled:?}");
    }
    // The healthy run has trained as long as all others, and for at least 3,000 steps.
    cluster.reached(&healthy, 3000);
    assert_eq!(alarms(&cluster, &healthy), [] as [Value; 0]);
    assert_eq!(cluster.rung(&healthy), [] as [Value; 0]);
    cluster.run(&["cancel", &healthy]);
}

/// The rule needs over a hundred samples, one a second. Long steps make the test independent of the machine's load.
#[test]
fn memory_that_grows_is_found_and_named_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, job) = troubled(dir.path(), 0);
    let healthy = start(&mut cluster, &job, "none", 25);
    let leak = start(&mut cluster, &job, "leak", 25);
    let found = found(&cluster, &leak, "memory_growth");
    assert!(words(&found).contains("process"), "{found:#}");
    let of_memory = |alarm: &Value| alarm["kind"] == "memory_growth";
    assert!(!alarms(&cluster, &healthy).iter().any(of_memory), "{:?}", alarms(&cluster, &healthy));
}

#[test]
fn a_number_that_is_none_in_one_rank_is_named_with_operator_and_rank() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, job) = troubled(dir.path(), 2);
    let run = cluster.submit(job.argument(), &["--set", "program.parameters.trouble=\"nan_in_one_rank\""]);
    let ended = cluster.ended(&run);
    let reason = ended["reason"].as_str().unwrap();
    let first = "the loss of step 401 is NaN, first in `activation/002.mul` (1536 of 1536 elements) of rank 1";
    assert!(reason.contains(first), "{reason}");
    // The alarm names the place, whichever process reported last, and the alarm command received the same.
    let not_finite = |alarm: &Value| alarm["kind"] == "not_finite";
    let alarm = wait_for("the alarm", || alarms(&cluster, &run).into_iter().find(not_finite));
    let expected = json!(["error", 401, "layer `002.mul`, rank 1"]);
    assert_eq!(json!([alarm["severity"], alarm["since_step"], alarm["place"]]), expected, "{alarm:#}");
    let rung = wait_for("the hook", || cluster.rung(&run).into_iter().find(not_finite));
    assert_eq!(json!([rung["severity"], rung["since_step"], rung["place"]]), expected, "{rung:#}");
    // The terminal shows the alarm, too.
    let shown = cluster.run(&["show", &run]);
    assert!(shown.contains("alarm since step 401: ") && shown.contains("  try: "), "{shown}");
    assert_eq!(cluster.document("/api/runs")[0]["alarms"], 1);
    for words in [&["ps"][..], &["top", "--once"]] {
        let text = cluster.run(words);
        let of = |begin: &str| text.lines().find(|line| line.starts_with(begin)).unwrap();
        let place = of("RUN ").split("ALARMS").next().unwrap().chars().count();
        let count: String = of(&run).chars().skip(place).take_while(|one| !one.is_whitespace()).collect();
        assert_eq!(count, "1", "{text}");
    }
}

#[test]
fn a_process_that_hangs_is_ended_with_its_stack_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, job) = troubled(dir.path(), 0);
    let hung = dir.path().join("hung");
    for _ in 0..2 {
        let limit = ("LOCKSTEP_WORKER_PROGRESS_LIMIT_S", "5");
        cluster.add_worker_with(&[("TROUBLED_HANG", hung.to_str().unwrap()), limit]);
    }
    let run = cluster.submit(job.argument(), &[]);
    let view = wait_for("the next generation", || Some(cluster.show(&run)).filter(|view| view["generation"] == 2));
    assert!(hung.exists());
    assert_eq!(
        (&view["crashes"], &view["transients"], &view["last_exit"]["process"]),
        (&json!(0), &json!(1), &json!(1)),
        "{view:#}"
    );
    let what = view["last_exit"]["ending"]["Transient"]["what"].as_str().unwrap();
    let words = "it made no progress for 5 s (`progress_limit_s`) while training, after step 400; its last output has the stack";
    assert_eq!(what, words);
    let output = view["last_exit"]["output"].as_str().unwrap();
    let at = |call: &str| output.find(call).unwrap_or_else(|| panic!("`{call}` is not in {output}"));
    assert!(at("::run_saving") < at("Troubled as lockstep_worker::program::interface::Program>::loss"), "{output}");
    // Process 0 waited meanwhile, and was not blamed.
    cluster.reached(&run, 450);
    assert_eq!(cluster.show(&run)["generation"], 2);
    cluster.run(&["cancel", &run]);
}

#[test]
fn the_example_jobs_have_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let jobs = repository().join("configs/jobs");
    // Job files name data relative to their own folder. The larger jobs are shortened.
    for (job, steps) in [
        ("digits-mlp", None),
        ("diamonds-mlp", Some(400)),
        ("fashion-mlp", Some(300)),
        ("fashion-resnet", Some(40)),
        ("gpt-kjv", Some(30)),
    ] {
        let path = jobs.join(format!("{job}.toml"));
        let set = steps.map(|steps| format!("steps={steps}"));
        let sets: Vec<&str> = set.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        let run = cluster.submit(path.to_str().unwrap(), &[&["--allow-dirty"], sets.as_slice()].concat());
        cluster.finished_within(&run, Duration::from_mins(5));
        let steps = cluster.show(&run)["steps"].clone();
        wait_for("the last step's numbers", || {
            let series = cluster.document(&format!("/api/runs/{run}/series"));
            let loss = series["series"].as_array()?.iter().find(|one| one["name"] == "loss")?.clone();
            (loss["last_step"] == steps).then_some(())
        });
        assert_eq!(alarms(&cluster, &run), [] as [Value; 0], "{job}");
    }
}
