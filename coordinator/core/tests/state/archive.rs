//! Archived runs: they leave the state, and clients see them unchanged.

use lockstep_common::RunId;
use lockstep_core::command::{Annotate, ArchiveRuns};
use lockstep_core::outcome::ToArchive;
use lockstep_core::state::{ArchivedRun, Found};
use lockstep_core::view::RunView;
use lockstep_core::{ClusterState, Command, Effect, Outcome, Refusal, ReportBody};

use super::cluster::{Cluster, block, final_state};

/// A finished run with checkpoints at steps 5 and 10, whose processes have exited.
fn finished(cluster: &mut Cluster, name: &str) -> RunId {
    let run = cluster.submit(&[&format!("name={name}")]);
    cluster.all_ready(&run);
    cluster.say(&run, 0, block(7));
    for step in [5, 10] {
        cluster.checkpoint(&run, step);
    }
    for process in 0..2 {
        cluster.say(&run, process, ReportBody::Finished { step: 10, state: final_state() });
    }
    for process in 0..2 {
        cluster.say(&run, process, ReportBody::Exited { code: 0, output: String::new(), ending: None });
    }
    run
}

fn archive(cluster: &mut Cluster, runs: &[&RunId]) {
    let runs = runs.iter().map(|run| (*run).clone()).collect();
    assert_eq!(cluster.apply(&Command::Archive(ArchiveRuns { runs })), Outcome::Done);
}

/// The archived form of `run`.
fn kept(cluster: &Cluster, run: &RunId) -> ToArchive {
    let mut archived = cluster.effects.iter().filter_map(|effect| match effect {
        Effect::Archive(kept) if kept.run == *run => Some(kept.clone()),
        _ => None,
    });
    let kept = archived.next().expect("it is in the archive");
    assert!(archived.next().is_none(), "once");
    kept
}

fn view(cluster: &Cluster, run: &RunId) -> RunView {
    match cluster.state.found(run).unwrap() {
        Found::Here(run) => RunView::of(run),
        Found::Archived(id, archived) => RunView::of(&archived.whole(id, kept(cluster, run).rows).unwrap()),
    }
}

#[test]
fn a_run_in_the_archive_is_shown_as_it_was_and_takes_words_of_people() {
    let mut cluster = Cluster::with_two_nodes();
    let (run, other) = (finished(&mut cluster, "first"), finished(&mut cluster, "second"));
    let before = view(&cluster, &run);
    archive(&mut cluster, &[&run]);
    assert!(cluster.state.run(&run).is_none() && cluster.state.archived(&run).is_some());
    assert_eq!(view(&cluster, &run), before);
    let (archived, stored) = (cluster.state.archived(&run).unwrap(), kept(&cluster, &run));
    let listed = |for_lists: &[u8]| cluster.state.archived(&run).unwrap().listed(&run).row(for_lists).unwrap();
    assert_eq!(listed(&stored.for_lists), before.row);
    assert_eq!(stored.number, before.row.number);
    // Earlier builds archived the row for lists among the others.
    let mut earlier = stored.rows.clone();
    earlier.push((format!("list/{run}"), stored.for_lists.clone()));
    assert_eq!(listed(&archived.for_lists(&run, earlier).unwrap()), before.row);
    assert_eq!(ArchivedRun::job(&run, &stored.rows).unwrap(), before.job);
    assert_eq!(cluster.state.runs().len(), 1);
    let number = cluster.run(&other).submission.number;
    let listed =
        |before, most| -> Vec<RunId> { cluster.state.listed(before, most).iter().map(|(_, id)| id.clone()).collect() };
    assert_eq!(listed(u64::MAX, 9), [run.clone(), other.clone()]);
    assert_eq!((cluster.state.older_than(number), cluster.state.older_than(u64::MAX)), (1, 2));
    assert_eq!((listed(u64::MAX, 1), listed(number, 1)), (vec![other], vec![run.clone()]));

    let (tags, note) = (Some(vec!["kept".to_owned()]), Some("a note".to_owned()));
    let annotate = Annotate { request: cluster.request(), run: run.clone(), tags, note };
    assert_eq!(cluster.apply(&Command::Annotate(annotate)), Outcome::Done);
    let now = view(&cluster, &run);
    assert_eq!(cluster.state.archived(&run).unwrap().listed(&run).row(&stored.for_lists).unwrap().tags, ["kept"]);
    assert_eq!((now.row.tags.as_slice(), now.note.as_str()), (&["kept".to_owned()][..], "a note"));
    assert_eq!(cluster.cancel(&run), Outcome::Refused(Refusal::Ended { run: run.clone(), status: "finished".into() }));
    for typed in ["first", run.as_str(), &run.as_str()[..6]] {
        assert_eq!(cluster.state.find_run(typed).unwrap().id(), &run, "{typed}");
    }
    // The state rebuilt from its rows is the same.
    let again = ClusterState::from_rows(cluster.store()).unwrap();
    assert_eq!(again.rows(), cluster.state.rows());
    for state in [&again, &cluster.state] {
        let checkpoints = &state.archived(&run).unwrap().checkpoints;
        assert_eq!((checkpoints.len(), checkpoints.capacity()), (2, 2), "no more memory than they need");
    }
    assert_eq!(again.listed(u64::MAX, 9), cluster.state.listed(u64::MAX, 9));
    let row = format!("archived/{run}");
    let size = |rows: &[(String, Vec<u8>)]| rows.iter().map(|(_, value)| value.len()).sum::<usize>();
    assert!(cluster.store()[&row].len() < 200 && size(&kept(&cluster, &run).rows) > 1500, "it is small");
}

#[test]
fn what_the_archive_has_is_resumed_from_and_late_words_of_it_change_nothing() {
    let mut cluster = Cluster::with_two_nodes();
    let run = finished(&mut cluster, "first");
    let checkpoint = cluster.run(&run).checkpoints[&5].id;
    archive(&mut cluster, &[&run]);
    let rows = cluster.store();
    let late = ReportBody::Exited { code: 0, output: String::new(), ending: None };
    assert_eq!(cluster.report_from(&run, (1, 0, 99), None, late), Outcome::Done);
    assert_eq!(cluster.store(), rows);
    assert_eq!(cluster.state.find_checkpoint(&checkpoint.short()), Ok(checkpoint));
    let resumed = cluster.resume(checkpoint).unwrap();
    assert_eq!((cluster.status(&resumed).as_str(), cluster.run(&resumed).step()), ("starting", 5));
    ClusterState::from_rows(cluster.store()).unwrap();
}

#[test]
fn only_what_is_over_goes_and_those_that_ended_last_stay() {
    let mut cluster = Cluster::with_two_nodes();
    let runs: Vec<RunId> = ["a", "b", "c"].iter().map(|name| finished(&mut cluster, name)).collect();
    let running = cluster.submit(&[]);
    cluster.all_ready(&running);
    assert_eq!(cluster.state.to_archive(1), runs[..2]);
    assert!(cluster.state.to_archive(3).is_empty());
    let unknown = "0000000000".parse().unwrap();
    archive(&mut cluster, &[&running, &runs[0], &runs[0], &unknown]);
    archive(&mut cluster, &[&runs[0]]);
    assert!(cluster.state.run(&running).is_some(), "it goes on");
    assert_eq!(kept(&cluster, &runs[0]).rows.len(), 6, "once");
    // Processes that have not exited yet stay in the desired state of their nodes.
    cluster.checkpoint(&running, 10);
    for process in 0..2 {
        cluster.say(&running, process, ReportBody::Finished { step: 10, state: final_state() });
    }
    archive(&mut cluster, &[&running]);
    assert_eq!((cluster.status(&running).as_str(), cluster.desired("a").len()), ("finished", 1));
}
