//! Written checkpoints are committed in the order of their steps or stored as failed, even if their generation or run ends before.

use lockstep_common::RunId;
use lockstep_core::state::{Restore, Status};
use lockstep_core::{Command, Effect, Outcome, ReportBody};

use crate::cluster::{Cluster, block, final_state, opened, other_state, share, written};

fn running() -> (Cluster, RunId) {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    (cluster, run)
}

fn write(cluster: &mut Cluster, run: &RunId, step: u64) {
    for process in 0..2 {
        cluster.say(run, process, written(&share(process, 2, step)));
    }
}

fn steps(cluster: &Cluster, run: &RunId) -> Vec<u64> {
    cluster.run(run).checkpoints.keys().copied().collect()
}

fn failed(cluster: &Cluster, run: &RunId) -> Vec<(u64, String)> {
    let failed = cluster.run(run).state.failed_checkpoints.iter();
    failed.map(|failed| (failed.step, failed.reason.clone())).collect()
}

#[test]
fn written_checkpoints_are_opened_in_the_order_of_steps_and_none_is_dropped() {
    let (mut cluster, run) = running();
    for step in [2, 4, 10] {
        write(&mut cluster, &run, step);
    }
    for process in 0..2 {
        cluster.say(&run, process, ReportBody::Finished { step: 10, state: final_state() });
    }
    assert_eq!(cluster.state.written(), [(run.clone(), 1, 2)], "the earliest comes first");
    let last = cluster.state.written_at(&run, 1, 10).unwrap();
    let early = opened(cluster.now(), (run.clone(), 1, 10), &last);
    assert!(matches!(early, Command::Commit(_)), "{early:?}");
    let rows = cluster.store();
    assert_eq!(cluster.apply(&early), Outcome::Done);
    assert_eq!(cluster.store(), rows, "not before those at steps 2 and 4");

    cluster.open();
    cluster.open_in_vain(&run, 4);
    assert_eq!(cluster.status(&run), "running");
    cluster.open();
    assert_eq!(cluster.run(&run).state.status, Status::Finished { state: final_state() });
    assert_eq!(steps(&cluster, &run), [2, 10]);
    assert_eq!(failed(&cluster, &run), [(4, "blob `x` is missing".to_owned())]);
}

#[test]
fn an_incomplete_checkpoint_before_a_committed_one_is_named() {
    let (mut cluster, run) = running();
    cluster.say(&run, 0, written(&share(0, 2, 2)));
    cluster.checkpoint(&run, 4);
    assert_eq!(failed(&cluster, &run), [(2, "some processes did not write their shares".to_owned())]);
    assert!(cluster.run(&run).shares.is_empty());
}

#[test]
fn a_run_that_ends_keeps_its_written_checkpoints() {
    let ends: [fn(&mut Cluster, &RunId); 2] = [
        |cluster, run| {
            cluster.say(run, 1, ReportBody::Failed { reason: "the loss is NaN at step 7".into(), transient: false });
        },
        |cluster, run| drop(cluster.cancel(run)),
    ];
    for end in ends {
        let (mut cluster, run) = running();
        for step in [2, 4] {
            write(&mut cluster, &run, step);
        }
        end(&mut cluster, &run);
        let status = cluster.status(&run);
        assert!(cluster.run(&run).shares.is_empty() && cluster.desired("a").is_empty());
        let effects = cluster.effects.len();
        cluster.open();
        cluster.open_in_vain(&run, 4);
        assert_eq!((steps(&cluster, &run), cluster.status(&run)), (vec![2], status));
        assert_eq!(failed(&cluster, &run), [(4, "blob `x` is missing".to_owned())]);
        assert!(cluster.state.written().is_empty());
        assert_eq!(cluster.effects.len(), effects, "the record of a run that has ended stays as it is");
    }
}

#[test]
fn a_new_generation_begins_from_the_checkpoint_that_was_being_opened() {
    let (mut cluster, run) = running();
    cluster.checkpoint(&run, 2);
    cluster.say(&run, 0, block(7));
    for step in [4, 6] {
        write(&mut cluster, &run, step);
    }
    cluster.exit(&run, 1, "killed");
    assert_eq!(cluster.status(&run), "queued: waits until the coordinator has read its checkpoint at step 6");
    assert!(!cluster.effects.iter().any(|effect| matches!(effect, Effect::Rewind { .. })));
    let later = cluster.submit(&["world={processes=4, min_processes=4}"]);
    assert_eq!(
        cluster.status(&later),
        format!("queued: waits for run `{run}`, which is before it in the queue"),
        "its devices are not given away meanwhile"
    );

    cluster.open();
    assert_eq!(cluster.status(&run), "queued: waits until the coordinator has read its checkpoint at step 6");
    cluster.open();
    assert_eq!(cluster.effects.last(), Some(&Effect::Rewind { run: run.clone(), step: 6 }));
    assert_eq!((cluster.status(&run).as_str(), cluster.run(&run).step()), ("starting", 6));
    assert_eq!(cluster.desired("a")[0].restore, Some(Restore::from(&cluster.run(&run).checkpoints[&6])));
    assert_eq!(cluster.run(&run).checkpoints[&6].generation, 1);
}

#[test]
fn a_new_generation_begins_earlier_if_the_checkpoint_cannot_be_opened() {
    let (mut cluster, run) = running();
    cluster.checkpoint(&run, 2);
    write(&mut cluster, &run, 4);
    cluster.exit(&run, 1, "killed");
    cluster.open_in_vain(&run, 4);
    assert_eq!(cluster.effects.last(), Some(&Effect::Rewind { run: run.clone(), step: 2 }));
    assert_eq!((cluster.status(&run).as_str(), cluster.run(&run).step()), ("starting", 2));
    let failures = &cluster.run(&run).state.failed_checkpoints;
    assert_eq!((failures[0].generation, failures[0].step), (1, 4));
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 4);
    assert_eq!(steps(&cluster, &run), [2, 4], "the new generation writes it again");
}

#[test]
fn a_run_that_is_cancelled_while_it_waits_for_a_checkpoint_keeps_it() {
    let (mut cluster, run) = running();
    write(&mut cluster, &run, 4);
    cluster.lose("b", "1");
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    cluster.open();
    assert_eq!((cluster.status(&run).as_str(), steps(&cluster, &run)), ("cancelled", vec![4]));
    assert_eq!(cluster.effects.last(), Some(&Effect::Rewind { run: run.clone(), step: 4 }));
}

#[test]
fn a_last_checkpoint_of_replicas_that_differ_is_none() {
    let (mut cluster, run) = running();
    write(&mut cluster, &run, 10);
    cluster.say(&run, 0, ReportBody::Finished { step: 10, state: final_state() });
    cluster.say(&run, 1, ReportBody::Finished { step: 10, state: other_state() });
    assert!(cluster.status(&run).starts_with("failed: replicas differ at the end"));
    assert!(cluster.state.written().is_empty());
    let failed = failed(&cluster, &run);
    assert!(failed.len() == 1 && failed[0].1.starts_with("replicas differ at the end"), "{failed:?}");
}
