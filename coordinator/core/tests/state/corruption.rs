//! Replicas that differ: which one was wrong, which device is fenced, and where the run continues.

use lockstep_common::{NodeId, RunId};
use lockstep_core::command::{FenceDevices, WaitTimedOut};
use lockstep_core::state::{Corruption, Grounds, Verdict};
use lockstep_core::view::NodeView;
use lockstep_core::{Command, Effect, Outcome, Refusal, ReportBody};

use super::cluster::{Cluster, block};

/// Nodes `a`, `b`, .. with one slot each, and a training run with a process on each node and a checkpoint at step 5.
fn at_work(nodes: &[&str], more: &[&str]) -> (Cluster, RunId) {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.join(node, "1", &["cpu"]);
    }
    let world = format!("world={{processes={}, min_processes=1}}", nodes.len());
    let run = cluster.submit(&[&[world.as_str()], more].concat());
    cluster.all_ready(&run);
    cluster.checkpoint(&run, 5);
    cluster.say(&run, 0, block(6));
    (cluster, run)
}

fn corrupt(cluster: &mut Cluster, run: &RunId, step: u64, fingerprints: &[u64]) {
    corrupt_on_the_way(cluster, run, step, fingerprints, &[]);
}

/// The same, with a trail: the results of the 4 ranks in the steps before.
fn corrupt_on_the_way(cluster: &mut Cluster, run: &RunId, step: u64, fingerprints: &[u64], trail: &[[u64; 4]]) {
    let (tensors, trail) = (vec!["model/0.weight".to_owned()], trail.concat());
    let said = ReportBody::Corrupt { step, agreed: 5, fingerprints: fingerprints.to_vec(), tensors, trail };
    all_say(cluster, run, &said);
}

/// Each process sends the same comparison, until the generation ends because of it.
fn all_say(cluster: &mut Cluster, run: &RunId, said: &ReportBody) {
    let generation = cluster.run(run).state.generation;
    for process in cluster.run(run).state.placement.keys().copied().collect::<Vec<_>>() {
        if cluster.run(run).state.generation == generation && !cluster.run(run).state.status.is_final() {
            cluster.say(run, process, said.clone());
        }
    }
}

fn agreed(cluster: &mut Cluster, run: &RunId, step: u64, fingerprint: u64, trail: &[[u64; 4]]) {
    all_say(cluster, run, &ReportBody::Agreed { step, fingerprint, trail: trail.concat() });
}

fn last(cluster: &Cluster, run: &RunId) -> Corruption {
    cluster.run(run).state.corruptions.last().unwrap().clone()
}

/// Names of the nodes with a fenced device.
fn fenced(cluster: &Cluster) -> Vec<String> {
    let is_fenced = |view: &NodeView| view.devices.iter().any(|device| device.fenced.is_some());
    cluster.state.node_views().iter().filter(|view| is_fenced(view)).map(|view| view.id.to_string()).collect()
}

fn placed_on(cluster: &Cluster, run: &RunId) -> Vec<String> {
    cluster.run(run).state.placement.values().map(|placed| placed.node.to_string()).collect()
}

fn fence(cluster: &mut Cluster, node: &str, device: Option<&str>, fenced: bool) -> Outcome {
    let (request, at_ms) = (cluster.request(), cluster.now());
    let device = device.map(str::to_owned);
    cluster.apply(&Command::Fence(FenceDevices { request, at_ms, node: node.parse().unwrap(), device, fenced }))
}

#[test]
fn of_three_the_one_that_differs_was_wrong_and_the_run_goes_on_without_it() {
    let (mut cluster, run) = at_work(&["a", "b", "c"], &[]);
    corrupt(&mut cluster, &run, 8, &[1, 1, 9]);
    let found = last(&cluster, &run);
    assert_eq!(found.verdict, Some(Verdict { wrong: vec![2], grounds: Grounds::Majority }));
    assert_eq!((found.step, found.agreed, found.claims[2].node.as_str()), (8, 5, "c"));
    assert_eq!(fenced(&cluster), ["c"]);
    assert_eq!(placed_on(&cluster, &run), ["a", "b"]);
    assert_eq!((cluster.run(&run).state.generation, cluster.run(&run).step()), (2, 5));
    assert_eq!(cluster.effects.last(), Some(&Effect::Rewind { run: run.clone(), step: 5 }));
    assert!(cluster.desired("a")[0].judge_at.is_empty(), "nothing is open");
    assert_eq!(cluster.run(&run).state.exits, 0);
}

#[test]
fn one_nodes_word_on_all_counts_with_a_witness_of_another() {
    let said = |fingerprints: &[u64]| ReportBody::Corrupt {
        step: 8,
        agreed: 5,
        fingerprints: fingerprints.to_vec(),
        tensors: Vec::new(),
        trail: vec![1],
    };
    let exited = || ReportBody::Exited { code: 1, output: String::new(), ending: None };
    let peers_gone = || ReportBody::Exited { code: 10, output: String::new(), ending: None };

    // The report waits, although its process ends, and counts with the second one.
    let (mut cluster, run) = at_work(&["a", "b", "c"], &[]);
    cluster.say(&run, 2, said(&[1, 1, 9]));
    cluster.say(&run, 2, exited());
    assert_eq!((cluster.status(&run).as_str(), fenced(&cluster).len()), ("running", 0));
    let waits = cluster.run(&run).waits_for().unwrap();
    assert_eq!(
        waits,
        "process 2 on `c` reported that the replicas differ after step 8, but no other node has confirmed it"
    );
    cluster.say(&run, 0, said(&[1, 1, 9]));
    assert_eq!((fenced(&cluster), cluster.run(&run).state.exits), (vec!["c".to_owned()], 0));
    assert!(cluster.run(&run).state.unconfirmed.is_empty());

    // No node confirms the report: nothing is fenced, and the reporting node is used last.
    let (mut cluster, run) = at_work(&["a", "b", "c"], &[]);
    cluster.say(&run, 2, said(&[1, 9, 9]));
    cluster.say(&run, 2, exited());
    cluster.say(&run, 0, peers_gone());
    let state = &cluster.run(&run).state;
    assert_eq!((fenced(&cluster).len(), state.corruptions.len(), state.transients, state.generation), (0, 0, 1, 2));
    assert_eq!(state.failed_on.keys().map(NodeId::as_str).collect::<Vec<_>>(), ["c"]);

    // Two nodes contradict each other.
    let (mut cluster, run) = at_work(&["a", "b", "c"], &[]);
    cluster.say(&run, 2, said(&[1, 9, 9]));
    cluster.say(&run, 0, said(&[1, 1, 9]));
    let state = &cluster.run(&run).state;
    assert_eq!((fenced(&cluster).len(), state.corruptions.len(), state.transients), (0, 0, 1));
    let words = "process 2 on `c` and process 0 on `a` contradict each other about the replicas after step 8";
    assert!(format!("{:?}", state.last_exit).contains(words), "{:?}", state.last_exit);

    // Reports about different steps contradict each other, too, because a process stops after such a report.
    let (mut cluster, run) = at_work(&["a", "b", "c"], &[]);
    cluster.say(&run, 2, said(&[1, 9, 9]));
    let ReportBody::Corrupt { agreed, fingerprints, tensors, trail, .. } = said(&[1, 9, 9]) else {
        panic!("it is one")
    };
    cluster.say(&run, 0, ReportBody::Corrupt { step: 9, agreed, fingerprints, tensors, trail });
    assert_eq!((fenced(&cluster).len(), cluster.run(&run).state.transients), (0, 1));

    // All other processes finish without a confirmation.
    let (mut cluster, run) = at_work(&["a", "b", "c"], &[]);
    cluster.say(&run, 2, said(&[1, 9, 9]));
    cluster.say(&run, 2, exited());
    for process in 0..2 {
        cluster.say(&run, process, ReportBody::Finished { step: 10, state: super::cluster::final_state() });
    }
    let state = &cluster.run(&run).state;
    assert_eq!((fenced(&cluster).len(), state.transients, state.generation), (0, 1, 2));

    // No further report arrives: the leader's timeout ends the generation.
    let (mut cluster, run) = at_work(&["a", "b", "c"], &[]);
    cluster.say(&run, 2, said(&[1, 9, 9]));
    cluster.say(&run, 2, exited());
    assert_eq!(cluster.state.starting(), [(run.clone(), 1)]);
    cluster.apply(&Command::Silent(WaitTimedOut { at_ms: 99, run: run.clone(), generation: 1, seconds: 60 }));
    let state = &cluster.run(&run).state;
    assert_eq!((fenced(&cluster).len(), state.transients, state.generation), (0, 1, 2));

    // In a re-run, the verdict also waits for a second node.
    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    corrupt(&mut cluster, &run, 8, &[1, 9]);
    cluster.all_ready(&run);
    cluster.say(&run, 0, ReportBody::Agreed { step: 8, fingerprint: 1, trail: Vec::new() });
    assert_eq!((last(&cluster, &run).verdict, fenced(&cluster).len()), (None, 0));
    cluster.say(&run, 1, ReportBody::Agreed { step: 8, fingerprint: 1, trail: Vec::new() });
    assert_eq!(fenced(&cluster), ["b"]);
}

#[test]
fn of_two_the_steps_made_again_tell_who_was_wrong() {
    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    corrupt(&mut cluster, &run, 8, &[1, 9]);
    assert_eq!((last(&cluster, &run).verdict, fenced(&cluster).len()), (None, 0));
    assert_eq!(
        (placed_on(&cluster, &run), cluster.desired("a")[0].judge_at.clone()),
        (vec!["a".into(), "b".into()], vec![8])
    );
    cluster.all_ready(&run);
    agreed(&mut cluster, &run, 7, 1, &[]);
    assert_eq!(last(&cluster, &run).verdict, None, "another step");
    cluster.checkpoint(&run, 6);
    agreed(&mut cluster, &run, 8, 1, &[]);
    assert_eq!(last(&cluster, &run).verdict, Some(Verdict { wrong: vec![1], grounds: Grounds::Replay }));
    assert_eq!((fenced(&cluster), placed_on(&cluster, &run)), (vec!["b".to_owned()], vec!["a".to_owned()]));
    assert_eq!((cluster.run(&run).state.generation, cluster.run(&run).step()), (3, 6), "it left the device");
    // The agent of a fenced node may restart; the fence stays until a user removes it.
    cluster.join("b", "2", &["cpu"]);
    assert_eq!(fenced(&cluster), ["b"]);
    assert_eq!(fence(&mut cluster, "b", None, false), Outcome::Done);
    assert!(fenced(&cluster).is_empty());
}

#[test]
fn who_spoiled_everybodys_state_is_known_by_the_ranks_that_came_out_otherwise_first() {
    let sound = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]];
    let verdict = |spoiled: [[u64; 4]; 3], again: &[[u64; 4]]| {
        let (mut cluster, run) = at_work(&["a", "b"], &[]);
        corrupt_on_the_way(&mut cluster, &run, 8, &[70, 71], &spoiled);
        cluster.all_ready(&run);
        agreed(&mut cluster, &run, 8, 60, again);
        let found = last(&cluster, &run);
        assert!(found.trail.is_empty(), "the trail is large, and not needed after the verdict");
        (found.verdict.unwrap().wrong, fenced(&cluster))
    };
    // Ranks 2 and 3 are on `b`; one step later all are wrong.
    let spoiled = [sound[0], [5, 6, 7, 0], [0, 0, 0, 0]];
    assert_eq!(verdict(spoiled, &sound), (vec![1], vec!["b".to_owned()]));
    assert_eq!(verdict([sound[0], [0, 6, 7, 8], [0; 4]], &sound), (vec![0], vec!["a".to_owned()]));
    // Both in the same step, or without a trail: the wrong process is unknown.
    assert_eq!(verdict([sound[0], [0, 6, 7, 0], [0; 4]], &sound), (vec![], vec![]));
    assert_eq!(verdict(spoiled, &[]), (vec![], vec![]));
    // Trails of different lengths are compared up to the end of the shorter one.
    assert_eq!(verdict(spoiled, &sound[..2]).0, [1]);
}

#[test]
fn one_that_is_alone_does_not_judge_itself() {
    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    corrupt(&mut cluster, &run, 8, &[1, 9]);
    cluster.lose("b", "1");
    cluster.all_ready(&run);
    agreed(&mut cluster, &run, 8, 1, &[]);
    assert_eq!((last(&cluster, &run).verdict, fenced(&cluster).len()), (None, 0));
    // A device that took no part in the corruption may decide alone.
    cluster.join("c", "1", &["cpu"]);
    cluster.lose("a", "1");
    assert_eq!(placed_on(&cluster, &run), ["c"]);
    cluster.all_ready(&run);
    agreed(&mut cluster, &run, 8, 9, &[]);
    assert_eq!((last(&cluster, &run).verdict.unwrap().wrong, fenced(&cluster)), (vec![0], vec!["a".to_owned()]));
}

#[test]
fn one_that_changes_its_mind_was_wrong_and_two_that_do_not_end_the_run() {
    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    corrupt(&mut cluster, &run, 8, &[1, 9]);
    cluster.all_ready(&run);
    corrupt(&mut cluster, &run, 8, &[1, 7]);
    assert_eq!(last(&cluster, &run).verdict, Some(Verdict { wrong: vec![1], grounds: Grounds::Unstable }));
    assert_eq!((fenced(&cluster), placed_on(&cluster, &run)), (vec!["b".to_owned()], vec!["a".to_owned()]));

    // `b` was wrong both times, in different steps. `a` had different states, too, but only because of `b`'s results.
    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    corrupt_on_the_way(&mut cluster, &run, 8, &[70, 71], &[[1, 2, 3, 4], [5, 6, 7, 0], [0, 0, 0, 0]]);
    cluster.all_ready(&run);
    corrupt_on_the_way(&mut cluster, &run, 8, &[80, 81], &[[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 0, 9]]);
    assert_eq!(last(&cluster, &run).verdict, Some(Verdict { wrong: vec![1], grounds: Grounds::Unstable }));
    assert_eq!(fenced(&cluster), ["b"]);

    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    for _ in 0..2 {
        corrupt(&mut cluster, &run, 8, &[1, 9]);
        if cluster.status(&run) == "starting" {
            cluster.all_ready(&run);
        }
    }
    assert_eq!(
        cluster.status(&run),
        format!(
            "failed: silent corruption: the replicas differ after step 8 (equal after step 5): process 0 on `cpu` of `a` has \
             0000000000000001, process 1 on `cpu` of `b` has 0000000000000009; a re-run gave the same fingerprints on the same devices: \
             take the suspect device out of use with `coord fence NODE DEVICE`, and run `coord resume {}`",
            cluster.run(&run).checkpoints[&5].id.short()
        )
    );
    assert!(fenced(&cluster).is_empty());
}

#[test]
fn a_run_without_a_checkpoint_is_told_to_begin_again() {
    let mut cluster = Cluster::default();
    for node in ["a", "b"] {
        cluster.join(node, "1", &["cpu"]);
    }
    let run = cluster.submit(&["world={processes=2, min_processes=1}"]);
    cluster.all_ready(&run);
    for _ in 0..2 {
        corrupt(&mut cluster, &run, 8, &[1, 9]);
        if cluster.status(&run) == "starting" {
            cluster.all_ready(&run);
        }
    }
    let status = cluster.status(&run);
    assert!(status.ends_with("and submit the run again, because it has no checkpoint"), "{status}");
}

#[test]
fn what_nobody_can_explain_three_times_ends_the_run() {
    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    for step in [8, 9] {
        corrupt(&mut cluster, &run, step, &[1, step]);
        cluster.all_ready(&run);
    }
    agreed(&mut cluster, &run, 8, 77, &[]);
    let first = cluster.run(&run).state.corruptions[0].clone();
    assert_eq!(first.verdict, Some(Verdict { wrong: vec![], grounds: Grounds::Replay }), "no process had 77");
    assert!(fenced(&cluster).is_empty());
    corrupt(&mut cluster, &run, 10, &[1, 2]);
    assert!(cluster.status(&run).contains("3 times the wrong device could not be found"), "{}", cluster.status(&run));
}

#[test]
fn a_fenced_device_gets_nobody_and_whoever_is_there_moves() {
    let (mut cluster, run) = at_work(&["a", "b"], &[]);
    assert_eq!(fence(&mut cluster, "a", Some("cpu"), true), Outcome::Done);
    assert_eq!((placed_on(&cluster, &run), cluster.run(&run).state.generation), (vec!["b".to_owned()], 2));
    assert_eq!(fence(&mut cluster, "b", None, true), Outcome::Done);
    assert_eq!(
        cluster.status(&run),
        "queued: needs 1 cpu device, 0 are free and the nodes have 0 in all; 2 more are fenced, as `coord nodes` shows"
    );
    assert_eq!(fence(&mut cluster, "a", Some("cpu"), false), Outcome::Done);
    assert_eq!(placed_on(&cluster, &run), ["a"]);
    for (node, device, words) in
        [("z", None, "there is no node `z`"), ("a", Some("cuda:0"), "no device `cuda:0` on node")]
    {
        let Outcome::Refused(refusal) = fence(&mut cluster, node, device, true) else { panic!("not refused") };
        assert!(matches!(refusal, Refusal::NoDevice(_)) && refusal.to_string().contains(words), "{refusal}");
    }
}
