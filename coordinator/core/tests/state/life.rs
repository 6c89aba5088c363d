//! Runs from submission to end without failures, and requests.

use lockstep_common::{NodeId, RunId};
use lockstep_core::command::{Annotate, Cancel, FenceDevices, NodeForgotten, ReplayRun, Submit};
use lockstep_core::state::Replay;
use lockstep_core::state::Status;
use lockstep_core::view::RunView;
use lockstep_core::{ClusterState, Command, Effect, Outcome, Refusal, ReportBody};

use super::cluster::{Cluster, block, final_state, job_text, ready, share, written};

#[test]
fn a_run_is_placed_started_checkpointed_and_finished() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    assert_eq!(cluster.status(&run), "starting");
    let (a, b) = (cluster.desired("a"), cluster.desired("b"));
    assert_eq!((a.len(), b.len()), (1, 1), "spread over the nodes");
    assert_eq!((a[0].process, b[0].process, b[0].processes, a[0].generation), (0, 1, 2, 1));
    assert_eq!((&a[0].restore, a[0].peers.len(), a[0].device.as_str()), (&None, 0, "cpu"));

    let reason = |cluster: &Cluster| RunView::of(cluster.run(&run)).row.reason;
    assert_eq!(reason(&cluster).unwrap(), "waits for process 0 on `a` and 1 more to be ready");
    cluster.say(&run, 1, ready(1, "avx2"));
    assert_eq!(cluster.status(&run), "starting", "process 0 is not ready");
    assert_eq!(reason(&cluster).unwrap(), "waits for process 0 on `a` to be ready");
    assert!(cluster.desired("a")[0].peers.is_empty());
    cluster.say(&run, 0, ready(0, "avx2"));
    assert_eq!(cluster.status(&run), "running");
    assert_eq!(cluster.desired("b")[0].peers, ["127.0.0.1:9000", "127.0.0.1:9001"]);
    assert_eq!(cluster.desired("a")[0].secret, cluster.desired("b")[0].secret);

    cluster.say(&run, 0, block(5));
    let checkpoint = cluster.checkpoint(&run, 5);
    assert!(cluster.desired("a")[0].restore.is_none(), "what a generation begins with does not change in its life");
    cluster.say(&run, 0, block(10));
    cluster.checkpoint(&run, 10);
    let expected = [5, 10].map(|step| Effect::AppendBlock { run: run.clone(), process: 0, bytes: vec![step] });
    assert_eq!(cluster.effects, expected);

    cluster.say(&run, 1, ReportBody::Finished { step: 10, state: final_state() });
    assert_eq!(cluster.status(&run), "running", "process 0 has not finished");
    cluster.say(&run, 0, ReportBody::Finished { step: 10, state: final_state() });
    assert_eq!(cluster.run(&run).state.status, Status::Finished { state: final_state() });
    assert_eq!(cluster.desired("a").len(), 1, "it ends by itself");
    cluster.say(&run, 0, ReportBody::Exited { code: 0, output: String::new(), ending: None });
    assert_eq!(cluster.desired("a").len(), 0);
    assert_eq!(cluster.status(&run), "finished");

    let view = RunView::of(cluster.run(&run));
    assert_eq!((view.row.step, view.row.final_state_digest), (10, Some(final_state())));
    assert_eq!((view.checkpoints.len(), view.checkpoints[0].id), (2, checkpoint));
    let loss = view.row.loss.clone().unwrap();
    assert_eq!((loss.value, loss.bits.as_str()), (Some(1.5), "3ff8000000000000"));
    let json = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<RunView>(&json).unwrap(), view);
    assert!(!json.contains("secret"));
}

#[test]
fn a_repeated_request_changes_nothing_and_gets_the_same_answer() {
    let mut cluster = Cluster::with_two_nodes();
    let submit = cluster.submit_command(&[]);
    let first = cluster.apply(&submit);
    let rows = cluster.store();
    assert_eq!(cluster.apply(&submit), first);
    assert_eq!(cluster.store(), rows);

    let Outcome::Run(run) = first else { panic!("{first:?}") };
    let cancel = Command::Cancel(Cancel { request: cluster.request(), at_ms: 1, run: run.clone() });
    assert_eq!(cluster.apply(&cancel), Outcome::Done);
    assert_eq!(cluster.apply(&cancel), Outcome::Done, "the same request");
    let Outcome::Refused(refusal) = cluster.cancel(&run) else { panic!("another request") };
    assert_eq!(refusal.to_string(), format!("run `{run}` has already ended: cancelled"));
}

#[test]
fn an_answer_counts_only_for_the_kind_of_request_that_it_answered() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    let submit = cluster.submit_command(&[]);
    let Command::Submit(Submit { request, .. }) = submit.clone() else { unreachable!() };
    assert_eq!(cluster.apply(&Command::Cancel(Cancel { request, at_ms: 1, run })), Outcome::Done);
    let Outcome::Run(second) = cluster.apply(&submit) else { panic!("a submit makes a run") };
    assert_eq!(cluster.apply(&submit), Outcome::Run(second));
}

#[test]
fn a_job_that_is_not_sound_is_refused_with_the_cause() {
    let mut cluster = Cluster::with_two_nodes();
    let mut submit = cluster.submit_command(&[]);
    if let Command::Submit(Submit { job, .. }) = &mut submit {
        *job = job.replace("\"size\":8", "\"size\":9");
    }
    let Outcome::Refused(Refusal::Job(why)) = cluster.apply(&submit) else { panic!("not refused") };
    assert!(why.contains("key `batch.size`: 9 is not divisible by `ranks` = 4"), "{why}");
    assert!(cluster.state.runs().is_empty());
}

#[test]
fn a_cancelled_run_gives_its_devices_back_and_hears_nobody() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&["world.processes=4"]);
    cluster.all_ready(&run);
    cluster.say(&run, 0, written(&share(0, 4, 5)));
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    assert!(cluster.desired("a").is_empty());
    let rows = cluster.store();
    assert_eq!(cluster.report(&run, 1, 1, 2, block(3)), Outcome::Done);
    assert_eq!(cluster.store(), rows);
    assert!(!rows.keys().any(|key| key.starts_with("share/")));
    let next = cluster.submit(&["world.min_processes=2"]);
    assert_eq!(cluster.status(&next), "starting");
}

#[test]
fn reports_are_taken_in_order_and_once() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    let early = cluster.report(&run, 1, 0, 2, block(1));
    assert_eq!(early, Outcome::Refused(Refusal::OutOfOrder { process: 0, expected: 1, got: 2 }));
    cluster.say(&run, 0, ready(0, "avx2"));
    cluster.say(&run, 0, block(1));
    let rows = cluster.store();
    assert_eq!(cluster.report(&run, 1, 0, 2, block(9)), Outcome::Done, "seen before: acknowledged");
    assert_eq!(cluster.store(), rows);
    assert_eq!(cluster.effects.len(), 1);
    for (generation, process) in [(2, 0), (1, 2)] {
        let stranger = cluster.report(&run, generation, process, 1, block(1));
        assert!(matches!(stranger, Outcome::Refused(Refusal::NoProcess { .. })), "{stranger:?}");
    }
}

#[test]
fn a_request_id_that_made_a_run_makes_no_other_one() {
    let mut cluster = Cluster::with_two_nodes();
    let submit = cluster.submit_command(&[]);
    let Outcome::Run(run) = cluster.apply(&submit) else { panic!("not submitted") };
    let Command::Submit(Submit { request, at_ms, base_dir, secret, .. }) = submit.clone() else { unreachable!() };
    let job = job_text(&["steps=9"]);
    let (code, data) = (None, Vec::new());
    let other = Command::Submit(Submit { request: request.clone(), at_ms, job, base_dir, code, data, secret });
    let taken = Refusal::RequestTaken { request: request.to_string(), run: run.clone() };
    assert_eq!(cluster.apply(&other), Outcome::Refused(taken.clone()));
    let (replay, checkpoint) = (Replay { of: run.clone(), until: 2, fingerprints_every: 0 }, None);
    let replay = Command::Replay(ReplayRun { request, at_ms, replay, checkpoint, original: Box::default(), secret });
    assert_eq!(cluster.apply(&replay), Outcome::Refused(taken));
    assert_eq!(cluster.apply(&submit), Outcome::Run(run), "the same again has the same answer");
    assert_eq!(cluster.state.runs().len(), 1);
}

#[test]
fn a_request_id_that_was_one_command_is_no_other_one() {
    let mut cluster = Cluster::with_two_nodes();
    let (a, b) = (cluster.submit(&[]), cluster.submit(&[]));
    let request = cluster.request();
    let annotate = |run: &RunId, note: &str| {
        Command::Annotate(Annotate {
            request: request.clone(),
            run: run.clone(),
            tags: None,
            note: Some(note.to_owned()),
        })
    };
    let used = Outcome::Refused(Refusal::RequestUsed(request.to_string()));
    assert_eq!(cluster.apply(&annotate(&a, "first")), Outcome::Done);
    let cancel = |at_ms| Command::Cancel(Cancel { request: request.clone(), at_ms, run: b.clone() });
    let node: NodeId = "a".parse().unwrap();
    let fence = Command::Fence(FenceDevices {
        request: request.clone(),
        at_ms: 1,
        node: node.clone(),
        device: None,
        fenced: true,
    });
    let forget = Command::NodeForgotten(NodeForgotten { request: request.clone(), node });
    for other in [annotate(&b, "first"), annotate(&a, "second"), cancel(1), fence, forget] {
        assert_eq!(cluster.apply(&other), used, "{other:?}");
    }
    assert_eq!(cluster.apply(&annotate(&a, "first")), Outcome::Done, "the same again has the same answer");
    assert_eq!((cluster.run(&a).state.note.as_str(), cluster.run(&b).state.note.as_str()), ("first", ""));
    assert_eq!(cluster.status(&b), "starting");
    // The leader's time is not part of the request.
    let request = cluster.request();
    let cancel = |at_ms| Command::Cancel(Cancel { request: request.clone(), at_ms, run: b.clone() });
    assert_eq!([1, 2].map(|at_ms| cluster.apply(&cancel(at_ms))), [Outcome::Done, Outcome::Done]);
    // The rows of the state contain the requests.
    cluster.state = ClusterState::from_rows(cluster.store()).unwrap();
    let other = Command::Cancel(Cancel { request: request.clone(), at_ms: 3, run: a });
    assert_eq!(cluster.apply(&other), Outcome::Refused(Refusal::RequestUsed(request.to_string())));
    assert_eq!(cluster.apply(&cancel(3)), Outcome::Done);
}
