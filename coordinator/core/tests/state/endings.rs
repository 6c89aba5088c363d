//! Consequences of a process's end: endings that are nobody's fault, counted endings, and endings that fail the run.

use lockstep_common::{Ending, RunId};
use lockstep_core::command::{Configure, Messenger, RetryDue, WaitTimedOut};
use lockstep_core::state::Retries;
use lockstep_core::view::RunView;
use lockstep_core::{Command, Outcome, Refusal, ReportBody};

use super::cluster::{Cluster, block, final_state};

const RETRIES: Retries = Retries { crashes: 3, transients: 4, pause_ms: 5_000, longest_pause_ms: 8_000 };

fn with_retries() -> (Cluster, RunId) {
    let mut cluster = Cluster::with_two_nodes();
    assert_eq!(cluster.apply(&Command::Configure(Configure { retries: RETRIES })), Outcome::Done);
    let run = cluster.submit(&[]);
    (cluster, run)
}

fn exit(cluster: &mut Cluster, run: &RunId, ending: Ending) {
    cluster.say(run, 1, ReportBody::Exited { code: 143, output: "bye".into(), ending: Some(ending) });
}

fn transient(cluster: &mut Cluster, run: &RunId) {
    cluster.say(run, 0, ReportBody::Failed { reason: "cannot read `x`: Stale file handle".into(), transient: true });
}

/// Checks the pause, and ends it.
fn wait(cluster: &mut Cluster, run: &RunId) {
    let generation = cluster.run(run).state.generation;
    let due = cluster.run(run).state.due_at_ms;
    assert!(cluster.status(run).starts_with("queued: pauses before its next attempt"), "{}", cluster.status(run));
    assert!(cluster.desired("a").is_empty() && cluster.state.due(due - 1).is_empty());
    assert_eq!(cluster.state.due(due), [(run.clone(), generation)]);
    assert_eq!(
        cluster.state.due(due - RETRIES.longest_pause_ms - 1),
        [(run.clone(), generation)],
        "a clock that went back"
    );
    let early = Command::Due(RetryDue { run: run.clone(), generation: generation - 1 });
    assert_eq!(cluster.apply(&early), Outcome::Done);
    assert!(cluster.desired("a").is_empty(), "that was an earlier pause");
    assert_eq!(cluster.apply(&Command::Due(RetryDue { run: run.clone(), generation })), Outcome::Done);
    assert_eq!(cluster.status(run), "starting");
}

#[test]
fn what_is_nobodys_fault_costs_nothing_however_often_it_happens() {
    let (mut cluster, run) = with_retries();
    for _ in 0..10 {
        for ending in [Ending::PeersGone, Ending::NodeLeaving, Ending::Dismissed] {
            cluster.say(&run, 0, block(1));
            exit(&mut cluster, &run, ending);
            assert_eq!(cluster.status(&run), "starting");
        }
        // Without an ending in the report, the exit code decides.
        cluster.say(&run, 0, block(1));
        cluster.say(&run, 0, ReportBody::Exited { code: 10, output: String::new(), ending: None });
    }
    let view = RunView::of(cluster.run(&run));
    assert_eq!((view.crashes, view.transients, view.restarts), (0, 0, 40));
    assert_eq!(view.last_exit.unwrap().ending, Some(Ending::PeersGone));
}

#[test]
fn generations_that_end_before_their_first_step_are_not_tried_as_fast_as_a_machine_can() {
    let (mut cluster, run) = with_retries();
    exit(&mut cluster, &run, Ending::PeersGone);
    assert_eq!(cluster.status(&run), "starting");
    for count in 2..30 {
        let before = cluster.now();
        exit(&mut cluster, &run, Ending::PeersGone);
        let words = format!(
            "{count} generations in a row completed no step; in the last one, a process stopped because it lost its peers"
        );
        assert!(cluster.status(&run).ends_with(&words), "{}", cluster.status(&run));
        assert_eq!(cluster.run(&run).state.due_at_ms - before, if count == 2 { 5_000 } else { 8_000 });
        wait(&mut cluster, &run);
    }
    cluster.say(&run, 0, block(1));
    exit(&mut cluster, &run, Ending::PeersGone);
    assert_eq!(cluster.status(&run), "starting", "the generation completed a step");
    assert_eq!(RunView::of(cluster.run(&run)).crashes, 0);
}

#[test]
fn crashes_are_tried_again_after_pauses_that_grow_until_a_checkpoint_forgives() {
    let (mut cluster, run) = with_retries();
    exit(&mut cluster, &run, Ending::Crashed { code: 139 });
    assert_eq!(cluster.status(&run), "starting", "the first attempt follows at once");
    let before = cluster.now();
    exit(&mut cluster, &run, Ending::Crashed { code: 139 });
    assert_eq!(cluster.run(&run).state.due_at_ms, before + 5_000);
    assert!(cluster.status(&run).ends_with(": 2 processes crashed since the last checkpoint"));
    wait(&mut cluster, &run);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    for _ in 0..2 {
        exit(&mut cluster, &run, Ending::Crashed { code: 139 });
    }
    wait(&mut cluster, &run);
    exit(&mut cluster, &run, Ending::Crashed { code: 139 });
    assert_eq!(
        cluster.status(&run),
        "failed: 3 processes crashed without a new checkpoint in between; the last, process 1 on `b`, ended with code 143 and wrote: bye"
    );
}

#[test]
fn reasons_that_may_pass_are_counted_by_themselves_and_the_longest_pause_bounds_them() {
    let (mut cluster, run) = with_retries();
    exit(&mut cluster, &run, Ending::Crashed { code: 1 });
    transient(&mut cluster, &run);
    assert_eq!(cluster.status(&run), "starting", "the crash is another cause");
    transient(&mut cluster, &run);
    let words = "2 processes failed with a transient error since the last checkpoint; the last: cannot read `x`: Stale file handle";
    assert!(cluster.status(&run).ends_with(words), "{}", cluster.status(&run));
    wait(&mut cluster, &run);
    let before = cluster.now();
    transient(&mut cluster, &run);
    assert_eq!(cluster.run(&run).state.due_at_ms, before + 8_000, "and not 10 s");
    wait(&mut cluster, &run);
    // The process reports its error, and then its agent reports its exit.
    let generation = cluster.run(&run).state.generation;
    transient(&mut cluster, &run);
    assert_eq!(
        cluster.status(&run),
        "failed: 4 processes failed with a transient error without a new checkpoint in between; the last, process 0 on `a`: cannot read \
         `x`: Stale file handle"
    );
    let exited = ReportBody::Exited { code: 1, output: String::new(), ending: None };
    assert_eq!(cluster.report(&run, generation, 0, 2, exited), Outcome::Done);
}

#[test]
fn a_checkpoint_forgives_reasons_that_may_pass_too() {
    let (mut cluster, run) = with_retries();
    for _ in 0..2 {
        transient(&mut cluster, &run);
    }
    wait(&mut cluster, &run);
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    assert_eq!(RunView::of(cluster.run(&run)).transients, 0);
    transient(&mut cluster, &run);
    assert_eq!(cluster.status(&run), "starting", "as after the first");
}

#[test]
fn a_run_that_pauses_holds_nobody_back() {
    let (mut cluster, run) = with_retries();
    for _ in 0..2 {
        exit(&mut cluster, &run, Ending::Crashed { code: 1 });
    }
    let other = cluster.submit(&["world={processes=4, min_processes=4}"]);
    assert_eq!(cluster.status(&other), "starting", "on all devices: the first wants none now");
    let generation = cluster.run(&run).state.generation;
    cluster.apply(&Command::Due(RetryDue { run: run.clone(), generation }));
    assert!(cluster.status(&run).starts_with("queued: needs 2 cpu devices"), "{}", cluster.status(&run));
}

#[test]
fn a_reason_that_would_come_again_ends_the_run_and_a_cancelled_run_does_not_come_due() {
    let (mut cluster, run) = with_retries();
    cluster.say(&run, 1, ReportBody::Failed { reason: "the loss is NaN".into(), transient: false });
    assert_eq!(cluster.status(&run), "failed: process 1 on `b`: the loss is NaN");
    let run = cluster.submit(&[]);
    for _ in 0..2 {
        exit(&mut cluster, &run, Ending::Crashed { code: 1 });
    }
    let (due, generation) = (cluster.run(&run).state.due_at_ms, cluster.run(&run).state.generation);
    cluster.cancel(&run);
    assert!(cluster.state.due(due).is_empty());
    assert_eq!(cluster.apply(&Command::Due(RetryDue { run: run.clone(), generation })), Outcome::Done);
    assert_eq!(cluster.status(&run), "cancelled");
}

#[test]
fn only_the_agent_that_runs_a_process_speaks_for_it() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let from = |node: &str, incarnation: &str| {
        Some(Messenger { node: node.parse().unwrap(), incarnation: incarnation.to_owned() })
    };
    let (rows, effects) = (cluster.store(), cluster.effects.len());
    let finished = || ReportBody::Finished { step: 10, state: final_state() };
    let failed = || ReportBody::Failed { reason: "a lie".into(), transient: false };
    for (body, from) in [
        (block(7), from("b", "1")),
        (finished(), from("b", "1")),
        (failed(), from("b", "1")),
        (failed(), from("a", "0")),
        (failed(), from("c", "1")),
    ] {
        let outcome = cluster.report_from(&run, (1, 0, 2), from, body);
        assert!(matches!(outcome, Outcome::Refused(Refusal::NotItsAgent { process: 0, .. })), "{outcome:?}");
    }
    assert_eq!((cluster.store(), cluster.effects.len()), (rows, effects));
    assert_eq!(cluster.report_from(&run, (1, 0, 2), from("a", "1"), block(7)), Outcome::Done);
    assert_eq!(cluster.run(&run).step(), 7);
}

#[test]
fn a_generation_that_starts_without_a_word_is_tried_again_elsewhere() {
    let mut cluster = Cluster::default();
    for node in ["a", "b", "c"] {
        cluster.join(node, "1", &["cpu"]);
    }
    let run = cluster.submit(&[]);
    cluster.say(&run, 0, super::cluster::ready(0, "avx2"));
    assert_eq!(cluster.state.starting(), [(run.clone(), 1)]);
    let silent = |generation| Command::Silent(WaitTimedOut { at_ms: 9, run: run.clone(), generation, seconds: 60 });
    cluster.apply(&silent(2));
    assert_eq!(cluster.run(&run).state.generation, 1, "another one");
    cluster.apply(&silent(1));
    let state = &cluster.run(&run).state;
    let nodes: Vec<&str> = state.placement.values().map(|placed| placed.node.as_str()).collect();
    assert_eq!((state.generation, state.transients, nodes), (2, 1, vec!["a", "c"]));
    let exit = state.last_exit.as_ref().unwrap();
    let words = "it was not ready 60 s after the run was placed (`start_limit_s`)";
    assert_eq!((exit.process, exit.ending.clone()), (1, Some(Ending::Transient { what: words.to_owned() })));
    cluster.all_ready(&run);
    cluster.apply(&silent(2));
    assert_eq!((cluster.status(&run).as_str(), cluster.run(&run).state.generation), ("running", 2));
}

#[test]
fn a_node_on_which_a_run_crashes_comes_last_for_it_until_it_has_a_checkpoint() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&["world={processes=1, min_processes=1}"]);
    let node = |cluster: &Cluster| cluster.run(&run).state.placement[&0].node.to_string();
    assert_eq!(node(&cluster), "a");
    cluster.exit(&run, 0, "no such library");
    assert_eq!(node(&cluster), "b");
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    assert!(cluster.run(&run).state.failed_on.is_empty());
    cluster.exit(&run, 0, "killed");
    assert_eq!(node(&cluster), "a");
}
