//! The end of a run: the run is finished only when its last checkpoint is committed (I12).

use lockstep_common::{Domain, RunId};
use lockstep_core::command::{Commit, CommitFailed};
use lockstep_core::state::Status;
use lockstep_core::view::{RunRow, RunView};
use lockstep_core::{Command, Outcome, ReportBody, Save};

use crate::cluster::{Cluster, final_state, other_state, share, written};

fn finished() -> ReportBody {
    ReportBody::Finished { step: 10, state: final_state() }
}

fn failed(reason: &str) -> ReportBody {
    ReportBody::ShareFailed { step: 10, reason: reason.into() }
}

fn running(sets: &[&str]) -> (Cluster, RunId) {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(sets);
    cluster.all_ready(&run);
    (cluster, run)
}

#[test]
fn a_run_whose_processes_have_finished_waits_for_its_last_checkpoint() {
    let (mut cluster, run) = running(&[]);
    for process in 0..2 {
        cluster.say(&run, process, written(&share(process, 2, 10)));
        cluster.say(&run, process, finished());
    }
    assert_eq!(cluster.status(&run), "running", "nobody has opened the blobs");
    assert_eq!(cluster.desired("a")[0].save, Save::default());
    cluster.open();
    assert_eq!(cluster.run(&run).state.status, Status::Finished { state: final_state() });
}

#[test]
fn a_run_is_not_finished_whose_last_checkpoint_holds_another_state_than_its_processes_ended_with() {
    let (mut cluster, run) = running(&[]);
    let checkpoint = cluster.checkpoint(&run, 10);
    for process in 0..2 {
        cluster.say(&run, process, ReportBody::Finished { step: 10, state: other_state() });
    }
    let status = cluster.status(&run);
    let expected = format!(
        "failed: silent corruption: the last checkpoint `{}` has state `{}`, but the processes ended with `{}`",
        checkpoint.short(),
        final_state(),
        other_state()
    );
    assert_eq!(status, expected);
}

#[test]
fn processes_are_told_when_the_last_checkpoint_is_committed() {
    let (mut cluster, run) = running(&[]);
    cluster.checkpoint(&run, 5);
    assert!(!cluster.desired("b")[0].save.committed, "that was not the last one");
    cluster.checkpoint(&run, 10);
    assert!(cluster.desired("b")[0].save.committed);
    assert_eq!(cluster.status(&run), "running", "they have not said that they are done");
}

#[test]
fn the_last_checkpoint_is_tried_again_and_may_still_commit() {
    let (mut cluster, run) = running(&[]);
    cluster.say(&run, 1, written(&share(1, 2, 10)));
    for _ in 0..3 {
        cluster.say(&run, 0, failed("no space"));
    }
    let row = RunRow::of(cluster.run(&run));
    let failure = row.checkpoint_failed.unwrap();
    assert_eq!((failure.step, failure.attempts, failure.reason.as_str()), (10, 3, "process 0 on `a`: no space"));
    assert_eq!((row.status.word(), row.alarms), ("running", Some(1)));
    cluster.say(&run, 0, written(&share(0, 2, 10)));
    cluster.open();
    let row = RunRow::of(cluster.run(&run));
    assert_eq!((row.checkpoint_failed, row.alarms), (None, Some(0)), "over");
    assert_eq!(RunView::of(cluster.run(&run)).failed_checkpoints.len(), 1, "and not forgotten");
    for process in 0..2 {
        cluster.say(&run, process, finished());
    }
    assert_eq!(cluster.status(&run), "finished");
}

#[test]
fn a_last_checkpoint_that_the_leader_cannot_open_is_written_again() {
    let (mut cluster, run) = running(&[]);
    for process in 0..2 {
        cluster.say(&run, process, written(&share(process, 2, 10)));
    }
    cluster.open_in_vain(&run, 10);
    assert!(cluster.run(&run).shares.is_empty());
    assert_eq!(cluster.desired("a")[0].save, Save { attempt: 1, ..Save::default() });
    assert_eq!(cluster.status(&run), "running");
    cluster.checkpoint(&run, 10);
    assert!(cluster.desired("a")[0].save.committed);
}

#[test]
fn a_run_that_cannot_save_its_last_checkpoint_is_not_finished() {
    let (mut cluster, run) = running(&[]);
    cluster.say(&run, 1, written(&share(1, 2, 10)));
    cluster.say(&run, 0, failed("no space"));
    assert!(!cluster.desired("b")[0].save.given_up);
    cluster.say(&run, 0, finished());
    assert!(cluster.desired("b")[0].save.given_up, "process 1 need not wait for it");
    assert_eq!(cluster.status(&run), "running");
    cluster.say(&run, 1, finished());
    assert_eq!(cluster.status(&run), "unsaved: process 0 on `a`: no space");
    let row = RunRow::of(cluster.run(&run));
    assert_eq!((row.final_state_digest, row.alarms), (Some(final_state()), Some(1)));
    assert!(row.ended_at_ms.is_some() && cluster.run(&run).shares.is_empty());
    assert_eq!(cluster.desired("a").len(), 1, "it ends by itself");
    for process in 0..2 {
        cluster.say(&run, process, ReportBody::Exited { code: 0, output: String::new(), ending: None });
    }
    assert!(cluster.desired("a").is_empty());
}

#[test]
fn a_run_is_unsaved_when_its_last_checkpoint_is_rejected_after_its_processes_have_gone() {
    let (mut cluster, run) = running(&[]);
    for process in 0..2 {
        cluster.say(&run, process, written(&share(process, 2, 10)));
        cluster.say(&run, process, finished());
    }
    cluster.open_in_vain(&run, 10);
    assert_eq!(cluster.status(&run), "unsaved: blob `x` is missing");
}

#[test]
fn cancel_works_while_the_last_checkpoint_is_tried_again() {
    let (mut cluster, run) = running(&[]);
    cluster.say(&run, 0, failed("no space"));
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    assert!(cluster.desired("a").is_empty());
    assert_eq!(cluster.status(&run), "cancelled");
}

#[test]
fn what_was_opened_before_something_changed_commits_nothing() {
    let (mut cluster, run) = running(&[]);
    for process in 0..2 {
        cluster.say(&run, process, written(&share(process, 2, 5)));
    }
    let late = cluster.opened().remove(0);
    let mut other = share(1, 2, 5);
    other.tensors[0].pieces[0].digest = Domain::Blob.digest(b"other");
    cluster.say(&run, 1, written(&other));
    let rows = cluster.store();
    assert_eq!(cluster.apply(&late), Outcome::Done);
    assert_eq!(cluster.store(), rows, "the shares are others than those that were opened");

    let next = cluster.opened().remove(0);
    cluster.exit(&run, 1, "killed");
    cluster.open();
    cluster.all_ready(&run);
    let rows = cluster.store();
    assert_eq!(cluster.apply(&next), Outcome::Done);
    let Command::Commit(Commit { at_ms, run, generation, step, .. }) = next else { panic!("{next:?}") };
    let failed =
        Command::CommitFailed(CommitFailed { at_ms, run: run.clone(), generation, step, reason: "late".into() });
    assert_eq!(cluster.apply(&failed), Outcome::Done);
    assert_eq!(cluster.store(), rows, "it was committed before");
    assert!(cluster.run(&run).checkpoints.len() == 1 && cluster.run(&run).state.failed_checkpoints.is_empty());
}

/// The process believes that its share is written, and would otherwise wait for ever for the commit.
#[test]
fn a_share_of_the_last_checkpoint_that_cannot_be_taken_is_written_again_until_it_is_given_up() {
    let (mut cluster, run) = running(&[]);
    let refused = |step| ReportBody::ShareRefused { step, reason: "its description is too large".into() };
    cluster.say(&run, 0, refused(5));
    assert_eq!(cluster.desired("a")[0].save, Save::default(), "that was not the last one");
    for attempt in 1..3 {
        cluster.say(&run, 1, written(&share(1, 2, 10)));
        cluster.say(&run, 0, refused(10));
        assert_eq!(cluster.desired("b")[0].save, Save { attempt, ..Save::default() });
        assert!(cluster.run(&run).shares.is_empty());
    }
    for process in 0..2 {
        cluster.say(&run, process, finished());
    }
    assert_eq!(cluster.status(&run), "unsaved: process 0 on `a`: its description is too large");
    assert_eq!(RunRow::of(cluster.run(&run)).checkpoint_failed.unwrap().attempts, 2);
}
