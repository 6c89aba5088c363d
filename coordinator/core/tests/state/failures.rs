//! Failures of processes and nodes, and reports that cannot be true.

use lockstep_core::command::Report;
use lockstep_core::state::Status;
use lockstep_core::view::RunView;
use lockstep_core::{Command, Effect, Outcome, ReportBody};

use super::cluster::{Cluster, block, final_state, other_state, ready, share, written};

#[test]
fn a_process_that_dies_takes_the_run_to_a_new_generation_and_its_last_checkpoint() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let secret = cluster.desired("a")[0].secret;
    let checkpoint = cluster.checkpoint(&run, 5);
    cluster.say(&run, 0, block(7));
    cluster.say(&run, 0, written(&share(0, 2, 8)));
    cluster.exit(&run, 1, "killed");

    assert_eq!(cluster.effects.last(), Some(&Effect::Rewind { run: run.clone(), step: 5 }));
    assert_eq!((cluster.run(&run).state.generation, cluster.status(&run).as_str()), (2, "starting"));
    assert_eq!(cluster.run(&run).step(), 5);
    assert!(cluster.run(&run).shares.is_empty());
    let next = &cluster.desired("a")[0];
    assert_eq!(next.restore.as_ref().map(|restore| restore.checkpoint), Some(checkpoint));
    assert!(next.peers.is_empty());
    assert_ne!(next.secret, secret, "a process of the old generation cannot join the new mesh");
    let exit = RunView::of(cluster.run(&run)).last_exit.unwrap();
    assert_eq!((exit.process, exit.code, exit.output.as_str()), (1, 137, "killed"));
}

#[test]
fn an_older_generation_neither_commits_nor_reports() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.say(&run, 0, written(&share(0, 2, 5)));
    cluster.exit(&run, 0, "");
    let (rows, effects) = (cluster.store(), cluster.effects.len());
    for body in [
        written(&share(1, 2, 5)),
        block(6),
        ReportBody::Finished { step: 10, state: final_state() },
        ReportBody::Failed { reason: "late".into(), transient: false },
        ReportBody::Exited { code: 1, output: String::new(), ending: None },
    ] {
        assert_eq!(cluster.report(&run, 1, 1, 2, body), Outcome::Done, "acknowledged, so that its agent drops it");
    }
    assert_eq!((cluster.store(), cluster.effects.len()), (rows, effects));
}

#[test]
fn processes_that_would_compute_differently_fail_the_run_by_name() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.say(&run, 0, ready(0, "avx2"));
    cluster.say(&run, 1, ready(1, "avx512"));
    assert_eq!(
        cluster.status(&run),
        "failed: the processes would compute different bits: `cpu` is `avx2` for process 0 on `a`, and `avx512` for process 1 \
         on `b`"
    );
    assert!(cluster.desired("a").is_empty() && cluster.desired("b").is_empty());
}

#[test]
fn a_later_generation_on_other_numerics_is_refused_too() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    cluster.exit(&run, 0, "");
    cluster.say(&run, 0, ready(0, "neon"));
    let status = cluster.status(&run);
    assert!(
        status.contains(&format!("`cpu` is `avx2` for checkpoint `{}`, and `neon`", checkpoint.short())),
        "{status}"
    );
}

#[test]
fn a_run_that_dies_over_and_over_fails_with_its_last_words() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    for _ in 0..4 {
        cluster.exit(&run, 1, "out of memory");
        assert_eq!(cluster.status(&run), "starting");
    }
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    for _ in 0..4 {
        cluster.exit(&run, 1, "out of memory");
        assert_eq!(cluster.status(&run), "starting", "a new checkpoint forgives");
    }
    cluster.exit(&run, 1, "out of memory\n");
    assert_eq!(
        cluster.status(&run),
        "failed: 5 processes crashed without a new checkpoint in between; the last, process 1 on `b`, ended with code \
         137 and wrote: out of memory"
    );
}

#[test]
fn a_reason_that_would_come_again_fails_the_run_at_once() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    cluster.say(&run, 1, ReportBody::Failed { reason: "the loss is NaN at step 7".into(), transient: false });
    assert_eq!(cluster.status(&run), "failed: process 1 on `b`: the loss is NaN at step 7");
    assert!(cluster.state.checkpoint(&checkpoint).is_ok(), "the last good checkpoint stays");
}

#[test]
fn of_a_long_reason_the_first_and_the_last_words_are_kept() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    let reason = format!("the model failed: {} RuntimeError: out of bounds", "é".repeat(5_000));
    cluster.say(&run, 1, ReportBody::Failed { reason, transient: false });
    let status = cluster.status(&run);
    assert!(status.starts_with("failed: process 1 on `b`: the model failed: éé"), "{status}");
    assert!(status.ends_with("é RuntimeError: out of bounds") && status.contains("\n[..]\n"), "{status}");
    assert!(status.len() < 4_200, "{}", status.len());
}

#[test]
fn replicas_that_end_in_different_states_are_found() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.say(&run, 0, ReportBody::Finished { step: 10, state: final_state() });
    cluster.say(&run, 1, ReportBody::Finished { step: 10, state: other_state() });
    let status = cluster.status(&run);
    assert!(status.starts_with("failed: replicas differ at the end: process 0 on `a` has state"), "{status}");
}

#[test]
fn a_lost_node_is_replaced_by_what_is_left_and_only_its_own_incarnation_is_lost() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.lose("b", "0");
    assert_eq!(cluster.run(&run).state.generation, 1, "that was another incarnation");
    cluster.lose("b", "1");
    assert_eq!((cluster.run(&run).state.generation, cluster.desired("a").len()), (2, 2));
    assert_eq!(cluster.run(&run).state.exits, 0, "not the run's fault");
    cluster.lose("a", "1");
    assert_eq!(cluster.status(&run), "queued: needs 2 cpu devices, 0 are free and the nodes have 0 in all");
    cluster.join("b", "1", &["cpu", "cpu"]);
    assert_eq!((cluster.status(&run).as_str(), cluster.desired("b").len()), ("starting", 2));
}

#[test]
fn a_new_incarnation_of_an_agent_has_none_of_the_old_processes() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.join("b", "1", &["cpu", "cpu"]);
    assert_eq!(cluster.run(&run).state.generation, 1, "the same agent came back to a new leader");
    cluster.join("b", "2", &["cpu", "cpu"]);
    assert_eq!((cluster.run(&run).state.generation, cluster.status(&run).as_str()), (2, "starting"));
}

#[test]
fn a_process_that_had_finished_may_be_lost() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 10);
    cluster.say(&run, 1, ReportBody::Finished { step: 10, state: final_state() });
    cluster.lose("b", "1");
    assert_eq!(cluster.status(&run), "running");
    cluster.say(&run, 0, ReportBody::Finished { step: 10, state: final_state() });
    assert_eq!(cluster.run(&run).state.status, Status::Finished { state: final_state() });
}

#[test]
fn a_process_that_names_a_step_which_cannot_be_fails_its_run_alone() {
    let cases: [(ReportBody, &str); 7] = [
        (block(11), "it reported the end of step 11, but the last step is 10"),
        (
            written(&share(0, 2, 3)),
            "it reported a checkpoint at step 3, but the job writes one every 5 steps, and at step 10",
        ),
        (written(&share(0, 2, 0)), "it reported a checkpoint at step 0, but"),
        (written(&share(0, 2, 15)), "it reported a checkpoint at step 15, but"),
        (ReportBody::ShareFailed { step: 4, reason: "full".into() }, "it reported a checkpoint at step 4, but"),
        (
            ReportBody::ShareRefused { step: u64::MAX, reason: "large".into() },
            "it reported a checkpoint at step 18446744073709551615, but",
        ),
        (ReportBody::Finished { step: 9, state: final_state() }, "it finished at step 9, but the last step is 10"),
    ];
    for (said, expected) in cases {
        let mut cluster = Cluster::with_two_nodes();
        let sets = ["checkpoint.every_steps=5", "world.processes=1", "world.min_processes=1"];
        let (run, other) = (cluster.submit(&sets), cluster.submit(&sets));
        cluster.all_ready(&run);
        cluster.all_ready(&other);
        cluster.say(&run, 0, block(10));
        cluster.say(&run, 0, said);
        let status = cluster.status(&run);
        assert!(status.starts_with(&format!("failed: process 0 on `a`: {expected}")), "{status}");
        assert!(cluster.run(&run).shares.is_empty());
        assert_eq!(cluster.status(&other), "running");
    }
}

#[test]
fn a_process_that_speaks_of_training_before_all_are_ready_fails_its_run() {
    let corrupt =
        ReportBody::Corrupt { step: 5, agreed: 0, fingerprints: vec![7, 9], tensors: Vec::new(), trail: Vec::new() };
    let agreed = ReportBody::Agreed { step: 5, fingerprint: 1, trail: Vec::new() };
    let failed = ReportBody::ShareFailed { step: 5, reason: "full".into() };
    for said in
        [corrupt, agreed, failed, written(&share(0, 2, 5)), ReportBody::Finished { step: 10, state: final_state() }]
    {
        let mut cluster = Cluster::with_two_nodes();
        let run = cluster.submit(&[]);
        cluster.say(&run, 0, ready(0, "avx2"));
        cluster.say(&run, 0, said);
        let words = "failed: process 0 on `a`: it sent a report about training before all processes were ready";
        assert_eq!(cluster.status(&run), words);
        assert!(
            cluster.state.node_views().iter().all(|node| node.devices.iter().all(|device| device.fenced.is_none()))
        );
    }
}

#[test]
fn shares_that_come_long_before_those_of_another_process_become_checkpoints() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&["steps=60", "checkpoint.every_steps=1"]);
    cluster.all_ready(&run);
    for process in 0..2 {
        for step in 1..=60 {
            cluster.say(&run, process, written(&share(process, 2, step)));
        }
    }
    for _ in 0..60 {
        cluster.open();
    }
    assert_eq!((cluster.status(&run).as_str(), cluster.run(&run).checkpoints.len()), ("running", 60));
}

#[test]
fn of_shares_without_end_the_earliest_checkpoints_are_given_up_by_name() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&["steps=20000", "checkpoint.every_steps=1"]);
    cluster.all_ready(&run);
    let ReportBody::Share { blob, .. } = written(&share(1, 2, 1)) else { unreachable!() };
    // Without `Cluster::apply`, which compares all rows after each command.
    let (at_ms, generation, process, from) = (cluster.now(), 1, 1, None);
    for step in 1..=(1 << 14) + 2 {
        let (run, sequence, body) = (run.clone(), step + 1, ReportBody::Share { step, blob: blob.clone() });
        let report = Report { at_ms, run, generation, process, sequence, from: from.clone(), body };
        let applied = cluster.state.apply(1000 + step, &Command::Report(report));
        assert_eq!(applied.outcome, Outcome::Done);
    }
    let waiting = cluster.run(&run);
    assert_eq!(waiting.shares.keys().map(|(step, _)| *step).next(), Some(3));
    let given_up = waiting.state.failed_checkpoints.iter().map(|failed| (failed.step, failed.reason.as_str()));
    let words = "shares of other processes are missing, and 16384 later checkpoints wait, too";
    assert_eq!(given_up.collect::<Vec<_>>(), [(1, words), (2, words)]);
    assert_eq!(cluster.status(&run), "running");
}

#[test]
fn a_process_that_derives_without_end_fails_its_run() {
    let mut cluster = Cluster::with_two_nodes();
    let derived = |index: u32| {
        let (key, was, now) = (format!("data.{index}"), "a".to_owned(), "b".to_owned());
        ReportBody::Derived { overrides: vec![lockstep_common::manifest::Override { key, was, now }] }
    };
    let run = cluster.submit(&[]);
    for index in 0..256 {
        cluster.say(&run, 0, derived(index));
    }
    assert_eq!((cluster.status(&run).as_str(), cluster.run(&run).state.measured.overrides.len()), ("starting", 256));
    cluster.say(&run, 0, derived(256));
    let words = "it reported changed data after it was ready, or more than 256 changes of data";
    assert_eq!(cluster.status(&run), format!("failed: process 0 on `a`: {words}"));
    let run = cluster.submit(&[]);
    cluster.say(&run, 0, ready(0, "avx2"));
    cluster.say(&run, 0, derived(0));
    assert!(cluster.status(&run).starts_with("failed: "), "after it was ready");
}
