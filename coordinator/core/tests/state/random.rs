//! Random sequences of commands never panic, and keep the state's invariants.

use std::collections::BTreeSet;

use lockstep_common::RunId;
use lockstep_core::command::{FenceDevices, NodeForgotten};
use lockstep_core::state::{ProcessPhase, Status};
use lockstep_core::{Command, Outcome, ReportBody};
use proptest::prelude::*;

use super::cluster::{Cluster, block, final_state, other_state, ready, share, written};

#[derive(Clone, Debug)]
enum Action {
    Submit {
        processes: u32,
        min: u32,
    },
    Resume {
        pick: usize,
    },
    Cancel {
        pick: usize,
    },
    Join {
        node: u8,
        incarnation: u8,
        slots: usize,
    },
    Detach {
        node: u8,
        earlier: bool,
    },
    Leave {
        node: u8,
        incarnation: u8,
    },
    Forget {
        node: u8,
    },
    Lose {
        node: u8,
        incarnation: u8,
    },
    Fence {
        node: u8,
        fenced: bool,
    },
    /// The leader opened all written checkpoints. `late`: the result is applied after the next action.
    Open {
        found: bool,
        late: bool,
    },
    /// `late`: number of generations before the current one. `skip`: 1 gives the next sequence number.
    Report {
        pick: usize,
        late: u64,
        process: u32,
        skip: u64,
        what: u8,
        step: u64,
    },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => (1..=4_u32, 1..=4_u32).prop_map(|(a, b)| Action::Submit { processes: a.max(b), min: a.min(b) }),
        1 => (0..9_usize).prop_map(|pick| Action::Resume { pick }),
        1 => (0..9_usize).prop_map(|pick| Action::Cancel { pick }),
        3 => (0..3_u8, 0..2_u8, 0..4_usize)
            .prop_map(|(node, incarnation, slots)| Action::Join { node, incarnation, slots }),
        2 => (0..3_u8, 0..2_u8).prop_map(|(node, incarnation)| Action::Lose { node, incarnation }),
        2 => (0..3_u8, proptest::bool::ANY).prop_map(|(node, earlier)| Action::Detach { node, earlier }),
        1 => (0..3_u8, 0..2_u8).prop_map(|(node, incarnation)| Action::Leave { node, incarnation }),
        1 => (0..3_u8).prop_map(|node| Action::Forget { node }),
        2 => (0..3_u8, proptest::bool::ANY).prop_map(|(node, fenced)| Action::Fence { node, fenced }),
        4 => (proptest::bool::ANY, proptest::bool::ANY).prop_map(|(found, late)| Action::Open { found, late }),
        30 => (0..3_usize, prop_oneof![9 => Just(0_u64), 1 => 1..3_u64], 0..4_u32,
               prop_oneof![9 => Just(1_u64), 1 => 0..3_u64], 0..13_u8, 1..=10_u64)
            .prop_map(|(pick, late, process, skip, what, step)| Action::Report { pick, late, process, skip, what, step }),
    ]
}

fn said(what: u8, process: u32, processes: u32, step: u64) -> ReportBody {
    match what {
        0..=2 => ready(process, if what == 0 && step == 1 { "avx512" } else { "avx2" }),
        3 => block(step),
        4..=6 if process < processes && processes <= 4 => written(&share(process, processes, step)),
        7 if step > 5 => ReportBody::ShareRefused { step, reason: "too large".into() },
        4..=7 => ReportBody::ShareFailed { step, reason: "disk full".into() },
        8 => ReportBody::Finished { step: 10, state: if step == 1 { other_state() } else { final_state() } },
        9 => ReportBody::Exited { code: [1, 10][step as usize % 2], output: "gone".into(), ending: None },
        10 => ReportBody::Corrupt {
            step,
            agreed: 0,
            fingerprints: (0..u64::from(processes)).map(|p| p % 2).collect(),
            tensors: vec![],
            trail: vec![step; 8],
        },
        11 => ReportBody::Agreed { step, fingerprint: step % 2, trail: vec![1; 9] },
        _ if step == 1 => ReportBody::Failed { reason: "NaN".into(), transient: process == 1 },
        _ => ReportBody::Block { progress: None, bytes: Vec::new() },
    }
}

fn pick<T: Clone>(from: &[T], at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[at % from.len()].clone())
}

fn act(cluster: &mut Cluster, late_commits: &mut Vec<Command>, action: &Action) {
    let due = std::mem::take(late_commits);
    let runs: Vec<RunId> = cluster.state.runs().iter().map(|run| run.id().clone()).collect();
    match *action {
        Action::Submit { processes, min } => {
            cluster.submit(&[&format!("world={{processes={processes}, min_processes={min}}}")]);
        }
        Action::Resume { pick: at } => {
            let made: Vec<_> = cluster.state.checkpoint_views().iter().map(|made| made.id).collect();
            if let Some(checkpoint) = pick(&made, at) {
                let _ = cluster.resume(checkpoint);
            }
        }
        Action::Cancel { pick: at } => {
            if let Some(run) = pick(&runs, at) {
                cluster.cancel(&run);
            }
        }
        Action::Join { node, incarnation, slots } => {
            cluster.join(&format!("n{node}"), &incarnation.to_string(), &vec!["cpu"; slots]);
        }
        Action::Fence { node, fenced } => {
            let (request, at_ms) = (cluster.request(), cluster.now());
            let node = format!("n{node}").parse().unwrap();
            cluster.apply(&Command::Fence(FenceDevices { request, at_ms, node, device: None, fenced }));
        }
        Action::Open { found: true, late: true } => *late_commits = cluster.opened(),
        Action::Open { found: true, late: false } => cluster.open(),
        Action::Open { found: false, .. } => {
            for (run, _, step) in cluster.state.written() {
                cluster.open_in_vain(&run, step);
            }
        }
        Action::Detach { node, earlier } => cluster.detach(&format!("n{node}"), earlier),
        Action::Leave { node, incarnation } => cluster.leave(&format!("n{node}"), &incarnation.to_string()),
        Action::Forget { node } => {
            let (request, node) = (cluster.request(), format!("n{node}").parse().unwrap());
            cluster.apply(&Command::NodeForgotten(NodeForgotten { request, node }));
        }
        Action::Lose { node, incarnation } => cluster.lose(&format!("n{node}"), &incarnation.to_string()),
        Action::Report { pick: at, late, process, skip, what, step } => {
            let Some(id) = pick(&runs, at) else { return };
            let state = &cluster.run(&id).state;
            let generation = state.generation.saturating_sub(late);
            let last = state.placement.get(&process).map_or(0, |placed| placed.sequence);
            let body = said(what, process, state.placement.len() as u32, step);
            let (rows, effects) = (cluster.store(), cluster.effects.len());
            let outcome = cluster.report(&id, generation, process, last + skip, body);
            if late > 0 || skip != 1 || matches!(outcome, Outcome::Refused(_)) {
                assert_eq!((cluster.store(), cluster.effects.len()), (rows, effects), "{action:?}: {outcome:?}");
            }
        }
    }
    for command in due {
        assert_eq!(cluster.apply(&command), Outcome::Done);
    }
}

fn gone(phase: ProcessPhase) -> bool {
    matches!(phase, ProcessPhase::Finished { exited: true, .. })
}

/// Checks the invariants that hold after every command.
fn check(cluster: &Cluster) {
    let (mut taken, mut expected) = (BTreeSet::new(), BTreeSet::new());
    for run in cluster.state.runs() {
        let processes = run.state.placement.len() as u32;
        match &run.state.status {
            Status::Queued { reason } => {
                assert!(processes == 0 && !reason.is_empty(), "{} waits for nothing", run.id());
            }
            Status::Starting | Status::Running => {
                assert!((run.job.min_processes()..=run.job.processes()).contains(&processes));
                for placed in run.state.placement.values() {
                    assert!(taken.insert((placed.node.clone(), placed.device)), "two processes on one device");
                    let alive = cluster.state.node(&placed.node).is_some_and(|node| node.presence.may_run());
                    assert!(alive || matches!(placed.phase, ProcessPhase::Finished { .. }), "placed on a lost node");
                }
            }
            Status::Finished { .. } | Status::Failed { .. } | Status::Cancelled | Status::Unsaved { .. } => {
                assert!(run.shares.is_empty());
                // I12.
                if let Status::Finished { state } = run.state.status {
                    let saved = run.checkpoints.get(&run.last_step()).map(|saved| saved.state);
                    assert_eq!(saved, Some(state), "finished without its last checkpoint");
                }
            }
        }
        let ends = matches!(run.state.status, Status::Finished { .. } | Status::Unsaved { .. });
        if ends || matches!(run.state.status, Status::Starting | Status::Running) {
            let here = run.state.placement.iter().filter(|(_, placed)| !gone(placed.phase));
            expected.extend(here.map(|(&process, _)| (run.id().clone(), process)));
        }
        for made in run.checkpoints.values() {
            assert_eq!(cluster.manifest(&made.id).state, made.state);
        }
    }
    let listed =
        |node: &str| cluster.desired(node).into_iter().map(|assigned| (assigned.run.clone(), assigned.process));
    let desired: Vec<_> = cluster.state.nodes().flat_map(|node| listed(node.id.as_str())).collect();
    assert_eq!(desired.iter().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!(desired.len(), expected.len(), "a process is named twice");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_commands_leave_a_sound_state(actions in prop::collection::vec(action(), 1..120)) {
        let (mut cluster, mut late_commits) = (Cluster::default(), Vec::new());
        for action in &actions {
            act(&mut cluster, &mut late_commits, action);
            check(&cluster);
        }
    }
}
