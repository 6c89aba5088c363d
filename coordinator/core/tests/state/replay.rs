//! Replays: runs that re-run steps of another run.

use lockstep_common::{Digest, Domain, RunId};
use lockstep_core::command::{Original, ReplayRun};
use lockstep_core::state::{Replay, ReportBody};
use lockstep_core::view::RunRow;
use lockstep_core::{Command, Outcome, Refusal};

use super::cluster::{Cluster, ready, share, text, written};

fn replay(cluster: &mut Cluster, of: &RunId, checkpoint: Option<Digest>, until: u64) -> Result<RunId, Refusal> {
    let replay = Replay { of: of.clone(), until, fingerprints_every: 1 };
    let (request, at_ms, secret) = (cluster.request(), cluster.now(), [9; 32]);
    let original = Box::new(original(cluster, of));
    match cluster.apply(&Command::Replay(ReplayRun { request, at_ms, replay, checkpoint, original, secret })) {
        Outcome::Run(id) => Ok(id),
        Outcome::Refused(refusal) => Err(refusal),
        Outcome::Done => panic!("a replay makes a run"),
    }
}

/// The leader's copy of the original run.
fn original(cluster: &Cluster, of: &RunId) -> Original {
    let restored = text(&[("cpu", "avx2"), ("threads", "1")]);
    cluster.state.run(of).map(|run| Original::of(run, restored)).unwrap_or_default()
}

/// A run of 10 steps that was cancelled after a checkpoint at step 5.
fn with_checkpoint(cluster: &mut Cluster) -> (RunId, Digest) {
    let run = cluster.submit(&["seed=7"]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    (run, checkpoint)
}

#[test]
fn a_replay_ends_where_it_was_told_and_makes_no_checkpoint() {
    let mut cluster = Cluster::with_two_nodes();
    let (run, checkpoint) = with_checkpoint(&mut cluster);
    let again = replay(&mut cluster, &run, Some(checkpoint), 8).unwrap();
    let assigned = &cluster.desired("a")[0];
    assert_eq!(assigned.replay.as_ref().map(|replay| (replay.until, replay.fingerprints_every)), Some((8, 1)));
    assert_eq!(assigned.restore.as_ref().map(|restore| restore.checkpoint), Some(checkpoint));
    cluster.all_ready(&again);
    for process in 0..2 {
        cluster.say(&again, process, written(&share(process, 2, 8)));
        cluster.say(&again, process, ReportBody::Finished { step: 8, state: Domain::State.digest(b"") });
    }
    let row = RunRow::of(cluster.run(&again));
    assert_eq!((row.status.word(), row.steps, row.replay_of), ("finished", 8, Some(run.clone())));
    assert!(cluster.run(&again).checkpoints.is_empty());
    // The replay has the name of its original run, but the name finds only the original.
    let name = cluster.run(&run).job.name.clone();
    assert_eq!(cluster.state.find_run(&name).unwrap().id(), &run);
}

#[test]
fn a_replay_that_loses_a_process_begins_again_where_it_began() {
    let mut cluster = Cluster::with_two_nodes();
    let (run, checkpoint) = with_checkpoint(&mut cluster);
    let again = replay(&mut cluster, &run, Some(checkpoint), 8).unwrap();
    cluster.all_ready(&again);
    cluster.exit(&again, 1, "killed");
    assert_eq!(cluster.run(&again).state.restore.as_ref().map(|restore| restore.checkpoint), Some(checkpoint));
}

#[test]
fn without_a_checkpoint_it_begins_where_the_run_began() {
    let mut cluster = Cluster::with_two_nodes();
    let (run, checkpoint) = with_checkpoint(&mut cluster);
    let from_start = replay(&mut cluster, &run, None, 3).unwrap();
    assert_eq!(cluster.run(&from_start).state.restore, None);
    assert_eq!(cluster.cancel(&from_start), Outcome::Done);
    let resumed = cluster.resume(checkpoint).unwrap();
    let from_parent = replay(&mut cluster, &resumed, None, 7).unwrap();
    assert_eq!(cluster.run(&from_parent).state.restore.as_ref().map(|restore| restore.step), Some(5));
}

#[test]
fn what_cannot_be_replayed_is_refused_with_the_reason() {
    let mut cluster = Cluster::with_two_nodes();
    let (run, checkpoint) = with_checkpoint(&mut cluster);
    let (other, _) = with_checkpoint(&mut cluster);
    for (of, checkpoint, until, words) in [
        (&run, Some(checkpoint), 5, "step 5 is not between 6 and 10"),
        (&run, None, 11, "step 11 is not between 1 and 10"),
        (&run, None, 0, "step 0 is not between 1 and 10"),
        (&other, Some(checkpoint), 8, "belongs to another run"),
    ] {
        let refusal = replay(&mut cluster, of, checkpoint, until).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
    let nobody: RunId = "0123456789".parse().unwrap();
    assert_eq!(replay(&mut cluster, &nobody, None, 1), Err(Refusal::NoRun(nobody.to_string())));
}

#[test]
fn a_replay_on_other_numerics_than_the_runs_is_refused_by_name() {
    let mut cluster = Cluster::with_two_nodes();
    let (run, _) = with_checkpoint(&mut cluster);
    let again = replay(&mut cluster, &run, None, 3).unwrap();
    cluster.say(&again, 0, ready(0, "neon"));
    let status = cluster.status(&again);
    assert!(status.starts_with("failed: the replay would compute different bits: `cpu` is `avx2` for run"), "{status}");
}

#[test]
fn a_request_id_that_made_a_replay_makes_none_from_another_checkpoint() {
    let mut cluster = Cluster::with_two_nodes();
    let (run, checkpoint) = with_checkpoint(&mut cluster);
    let (request, at_ms) = (cluster.request(), cluster.now());
    let original = Box::new(original(&cluster, &run));
    let from = |checkpoint| {
        let replay = Replay { of: run.clone(), until: 8, fingerprints_every: 1 };
        let (request, secret) = (request.clone(), [9; 32]);
        Command::Replay(ReplayRun { request, at_ms, replay, checkpoint, original: original.clone(), secret })
    };
    let Outcome::Run(made) = cluster.apply(&from(Some(checkpoint))) else { panic!("refused") };
    assert_eq!(cluster.apply(&from(Some(checkpoint))), Outcome::Run(made.clone()));
    let taken = Refusal::RequestTaken { request: request.to_string(), run: made };
    assert_eq!(cluster.apply(&from(None)), Outcome::Refused(taken));
}
