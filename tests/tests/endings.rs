//! Processes, nodes and coordinators that end, leave or stall: an event that is not the job's fault does not fail a run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lockstep_support::{Outcome, Process, Signal, binary, printed};
use lockstep_tests::{Cluster, DEADLINE, digits, wait_for};

/// A single crash fails a run, so the tests notice every event that counts as a crash.
const STRICT: (&str, &str) = ("LOCKSTEP_COORD_RETRIES__CRASHES", "1");

/// Overrides for a long job with a single checkpoint at its end, and the final state of an undisturbed run.
fn long(cluster: &Cluster, job: &str) -> (Vec<&'static str>, String) {
    let sets = vec!["--set", "steps=2500", "--set", "checkpoint.every_steps=2500", "--set", "world.min_processes=2"];
    let run = cluster.submit(job, &sets);
    (sets, cluster.finished(&run))
}

#[test]
fn preemptions_between_two_checkpoints_cost_no_attempt_and_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::configured(dir.path(), 2, &[STRICT]);
    let job = digits(dir.path());
    let (sets, state) = long(&cluster, job.argument());
    let run = cluster.submit(job.argument(), &sets);
    for round in 0..6 {
        cluster.reached(&run, 20);
        let index = round % 2;
        assert_eq!(cluster.stop_worker(index), 0);
        let name = format!("node-{index}");
        wait_for("it to be gone", || (cluster.node_state(&name) == "gone").then_some(()));
        let waiting =
            wait_for("the run to wait", || Some(cluster.show(&run)).filter(|view| view["status"] == "queued"));
        assert!(waiting["reason"].as_str().unwrap().starts_with("needs 2"), "{waiting:#}");
        cluster.restart_worker_with(index, &[]);
    }
    assert_eq!(cluster.finished(&run), state);
    let view = cluster.show(&run);
    assert_eq!(
        (&view["restarts"], &view["crashes"], &view["transients"]),
        (&6.into(), &0.into(), &0.into()),
        "{view:#}"
    );
}

#[test]
fn the_run_of_a_leaving_node_goes_on_elsewhere_and_a_node_that_dies_is_not_given_work_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::configured(dir.path(), 3, &[STRICT, ("LOCKSTEP_COORD_LEASE_MS", "4000")]);
    let job = digits(dir.path());
    let (sets, state) = long(&cluster, job.argument());
    let run = cluster.submit(job.argument(), &sets);
    cluster.reached(&run, 20);
    let on = |view: &serde_json::Value, process: usize| view["placement"][process]["node"].as_str().unwrap().to_owned();
    let leaving = on(&cluster.show(&run), 0);
    let index = |name: &str| name.strip_prefix("node-").unwrap().parse::<usize>().unwrap();
    cluster.stop_worker(index(&leaving));
    let next = wait_for("the spare node", || Some(cluster.show(&run)).filter(|view| view["generation"] == 2));
    assert!((0..2).all(|process| on(&next, process) != leaving), "{next:#}");
    cluster.restart_worker_with(index(&leaving), &[]);
    cluster.reached(&run, 20);

    // Peers notice the death at once, but the lease lasts 4 s. Until then the coordinator must not use this node.
    let dies = on(&next, 1);
    cluster.kill_worker(index(&dies));
    let next = wait_for("the next generation", || {
        let view = cluster.show(&run);
        (view["generation"].as_u64()? > 2 && view["status"] != "queued").then_some(view)
    });
    assert!((0..2).all(|process| on(&next, process) != dies), "{next:#}");
    assert_eq!(next["generation"], 3, "and no generation was started in between: {next:#}");
    assert_eq!(cluster.finished(&run), state);
}

#[test]
fn two_workers_of_one_name_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::configured(dir.path(), 1, &[STRICT, ("LOCKSTEP_COORD_LEASE_MS", "1000")]);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=100000", "--set", "world.processes=1"]);
    cluster.reached(&run, 20);
    let data = dir.path().join("second");
    let address = cluster.address().to_owned();
    let mut second = Command::new(binary("worker"));
    second.args(["--join", &address, "--name", "node-0", "--devices", "cpu", "--data-dir"]).arg(data);
    let Outcome { code, said, .. } = Process::start(&mut second).end(DEADLINE);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("node name `node-0` is in use by an agent on host `"), "{said}");
    let view = cluster.show(&run);
    assert_eq!((&view["status"], &view["restarts"]), (&"running".into(), &0.into()), "{view:#}");
    cluster.run(&["cancel", &run]);
}

#[test]
fn a_coordinator_that_is_stopped_for_longer_than_a_lease_loses_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::configured(dir.path(), 2, &[STRICT, ("LOCKSTEP_COORD_LEASE_MS", "1000")]);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=100000"]);
    cluster.reached(&run, 20);
    for _ in 0..2 {
        cluster.coordinator_process().signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(3));
        cluster.coordinator_process().signal(Signal::CONT);
        let before = cluster.show(&run)["step"].as_u64().unwrap();
        cluster.reached(&run, before + 20);
    }
    let view = cluster.show(&run);
    assert_eq!((&view["generation"], &view["restarts"]), (&1.into(), &0.into()), "{view:#}");
    cluster.run(&["cancel", &run]);
}

/// Ids of the processes whose command line contains `text`.
fn named(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let names = |pid: &u32| std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let is_named = |pid: &u32| names(pid).windows(text.len()).any(|part| part == text.as_bytes());
    ids.filter(is_named).collect()
}

#[test]
fn a_local_run_that_is_killed_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let job = digits(dir.path());
    let local = |sets: &[&str]| {
        let mut command = Command::new(binary("coord"));
        command.args(["submit", "--local", "2", job.argument(), "--allow-dirty"]).args(sets).current_dir(dir.path());
        command
    };
    let marker = dir.path().join(".lockstep/local").display().to_string();
    let mut killed = Process::start(&mut local(&["--set", "steps=10000000"]));
    wait_for("two agents and two rank processes", || (named(&marker).len() >= 4).then_some(()));
    killed.kill();
    wait_for("nothing to be left", || named(&marker).is_empty().then_some(()));
    printed(&mut local(&["--set", "steps=20"]));
}

#[test]
fn no_process_of_a_worker_has_its_credentials_and_programs_get_what_is_passed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    cluster.add_worker_with(&[
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("NOT_ASKED_FOR", "1"),
        ("DATA_PASSWORD", "given"),
        ("LOCKSTEP_WORKER_ENVIRONMENT__PASS", "[\"DATA_PASSWORD\"]"),
    ]);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=2000000", "--set", "world.processes=1"]);
    cluster.reached(&run, 20);
    let environment = |pid: u32| {
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>()
    };
    let (rank, worker) = (cluster.rank_pids(&run)[&0], cluster.worker_process(0).pid());
    for pid in [rank, worker] {
        let variables = environment(pid);
        let has = |name: &str| variables.iter().any(|variable| variable.starts_with(name));
        assert!(has("PATH=") && has("DATA_PASSWORD=given"), "{variables:?}");
        assert!(!has("AWS_SECRET_ACCESS_KEY") && !has("NOT_ASKED_FOR"), "{variables:?}");
    }
    cluster.run(&["cancel", &run]);
}
