//! Bit-for-bit equality: after a repetition, a resume, killed processes, and on any number of processes.

use std::collections::BTreeSet;

use lockstep_support::{Signal, signal};
use lockstep_tests::{Cluster, Record, digits, wait_for};
use serde_json::Value;

/// Trains a job without disturbance; returns the run's id, its final state and its record.
fn undisturbed(cluster: &Cluster, job: &str, more: &[&str]) -> (String, String, Record) {
    let run = cluster.submit(job, more);
    let state = cluster.finished(&run);
    let record = cluster.record(&run);
    (run, state, record)
}

fn tail(record: &Record, after: u64) -> Record {
    record.iter().filter(|(step, _)| **step > after).map(|(step, bits)| (*step, bits.clone())).collect()
}

#[test]
fn the_same_job_twice_and_resumed_from_every_checkpoint_gives_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let (first, state, record) = undisturbed(&cluster, job.argument(), &[]);
    assert_eq!(record.keys().copied().collect::<Vec<_>>(), (1..=90).collect::<Vec<_>>(), "every step is recorded once");

    let (_, again, same) = undisturbed(&cluster, job.argument(), &[]);
    assert_eq!((&again, &same), (&state, &record), "run again");
    let (_, other, _) = undisturbed(&cluster, job.argument(), &["--set", "seed=21"]);
    assert_ne!(other, state, "another seed must show");

    let checkpoints = cluster.checkpoints(&first);
    assert_eq!(checkpoints.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [15, 30, 45, 60, 75, 90]);
    let manifest: Value = serde_json::from_str(&cluster.run(&["manifest", &checkpoints[0].1])).unwrap();
    let ranks = manifest["ranks"].as_array().unwrap();
    for state in [|rank: &Value| rank["seeds"]["forward"].to_string(), |rank: &Value| rank["generators"].to_string()] {
        let all: BTreeSet<String> = ranks.iter().map(state).collect();
        assert_eq!(all.len(), 4, "every rank draws random numbers of its own: {all:?}");
    }
    for (step, checkpoint) in &checkpoints[..5] {
        let run = cluster.resume(checkpoint);
        assert_eq!(cluster.finished(&run), state, "resumed from step {step}");
        assert_eq!(cluster.record(&run), tail(&record, *step), "resumed from step {step}");
    }
}

#[test]
fn four_ranks_on_one_two_three_and_four_processes_give_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 4);
    let job = digits(dir.path());
    let (_, state, record) = undisturbed(&cluster, job.argument(), &["--set", "world.processes=1"]);
    for processes in ["2", "3", "4"] {
        let set = format!("world={{processes={processes}, min_processes={processes}}}");
        let run = cluster.submit(job.argument(), &["--set", &set]);
        assert_eq!(cluster.finished(&run), state, "{processes} processes");
        assert_eq!(cluster.record(&run), record, "{processes} processes");
        assert_eq!(cluster.show(&run)["processes"], processes.parse::<u64>().unwrap());
    }
}

#[test]
fn a_killed_rank_process_costs_a_generation_and_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    // Few checkpoints, so that steps after the last one must be rolled back.
    let steps = ["--set", "steps=3000", "--set", "checkpoint.every_steps=1200"];
    let (_, state, record) = undisturbed(&cluster, job.argument(), &steps);

    let run = cluster.submit(job.argument(), &steps);
    cluster.reached(&run, 1300);
    let pids = cluster.rank_pids(&run);
    assert_eq!(pids.len(), 2, "{pids:?}");
    signal(pids[&1], Signal::KILL);
    assert_eq!(cluster.finished(&run), state);
    assert_eq!(cluster.record(&run), record, "the rolled-back steps are removed, and re-run with the same bits");
    let view = cluster.show(&run);
    assert!(view["generation"].as_u64().unwrap() >= 2, "{view:#}");
    assert!(!view["restored_from"].is_null(), "it resumed from a checkpoint: {view:#}");
}

#[test]
fn a_killed_worker_is_replaced_by_a_spare_node_and_no_bit_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3);
    let job = digits(dir.path());
    let set = ["--set", "steps=1500", "--set", "world.processes=2", "--set", "world.min_processes=2"];
    let (_, state, record) = undisturbed(&cluster, job.argument(), &set);

    let run = cluster.submit(job.argument(), &set);
    cluster.reached(&run, 200);
    let view = cluster.show(&run);
    let node = view["placement"][1]["node"].as_str().unwrap().to_owned();
    cluster.kill_worker(node.strip_prefix("node-").unwrap().parse().unwrap());
    assert_eq!(cluster.finished(&run), state);
    assert_eq!(cluster.record(&run), record);
    let view = cluster.show(&run);
    assert!(view["placement"].as_array().unwrap().iter().all(|process| process["node"] != node.as_str()), "{view:#}");
}

#[test]
fn a_killed_coordinator_loses_nothing_and_the_processes_train_on_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let steps = ["--set", "steps=2400", "--set", "checkpoint.every_steps=400"];
    let (_, state, record) = undisturbed(&cluster, job.argument(), &steps);

    let run = cluster.submit(job.argument(), &steps);
    cluster.reached(&run, 200);
    let pids = cluster.rank_pids(&run);
    cluster.kill_coordinator();
    assert_eq!(cluster.rank_pids(&run), pids, "the processes do not notice");
    cluster.restart_coordinator();
    assert_eq!(cluster.finished(&run), state);
    assert_eq!(cluster.record(&run), record);
    assert_eq!(cluster.show(&run)["generation"], 1, "nothing was started again");
    assert_eq!(cluster.checkpoints(&run).len(), 6);
}

#[test]
fn a_stopped_rank_process_does_not_hold_the_others_for_ever_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=100000"]);
    cluster.reached(&run, 100);
    let before = cluster.rank_pids(&run);
    signal(before[&0], Signal::STOP);
    signal(before[&0], Signal::KILL);
    wait_for("a new generation", || {
        let now = cluster.rank_pids(&run);
        (now.len() == 2 && now.values().all(|pid| !before.values().any(|old| old == pid))).then_some(())
    });
    cluster.run(&["cancel", &run]);
    assert_eq!(cluster.ended(&run)["status"], "cancelled");
    wait_for("the processes to end", || cluster.rank_pids(&run).is_empty().then_some(()));
}
