//! Causes of a process's end, holders of devices, and the id of an agent.

use std::time::Duration;

use lockstep_agent::RankCommand;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{ExitCause, Exited};

use crate::coordinator::{Coordinator, Key};
use crate::support::{Agent, deaf_rank, fake_rank, key, logged, options, until, with_peers};

fn exited(coordinator: &Coordinator, key: &Key) -> Exited {
    coordinator.hear("its end", key, |body| match body {
        Body::Exited(exit) => Some(exit),
        _ => None,
    })
}

#[test]
fn the_agent_names_why_it_stopped_a_process_and_says_first_that_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let (dismissed, left) = (key(1, 0), key(2, 0));
    coordinator.desire(vec![with_peers(&dismissed)]);
    coordinator.wait("steps", |memory| (memory.step(&dismissed) > 3).then_some(()));
    coordinator.desire(vec![with_peers(&left)]);
    assert_eq!(exited(&coordinator, &dismissed).cause(), ExitCause::Dismissed);
    coordinator.wait("steps", |memory| (memory.step(&left) > 3).then_some(()));
    assert_eq!(coordinator.memory().leaving, 0);
    agent.stop().unwrap();
    let exit = exited(&coordinator, &left);
    assert_eq!((exit.code, exit.cause()), (128 + 15, ExitCause::NodeLeaving));
    assert_eq!(coordinator.memory().leaving, 1);

    // The end of a process that dies by itself has no cause, only its exit code.
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("die")));
    let died = key(3, 0);
    coordinator.desire(vec![with_peers(&died)]);
    let exit = exited(&coordinator, &died);
    assert_eq!((exit.code, exit.cause()), (7, ExitCause::Unnamed));
    agent.stop().unwrap();
}

#[test]
fn a_process_starts_when_the_one_before_has_left_its_device() {
    logged();
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let mut options = options(coordinator.address(), dir.path(), deaf_rank("endless"));
    options.slots = 1.try_into().unwrap();
    let agent = Agent::start(options);
    // Generations that no other test uses: all tests of this program share one log.
    let (old, new) = (key(771, 0), key(772, 0));
    coordinator.desire(vec![with_peers(&old)]);
    coordinator.wait("steps", |memory| (memory.step(&old) > 3).then_some(()));
    coordinator.desire(vec![with_peers(&new)]);
    coordinator.wait("steps of the next", |memory| (memory.step(&new) > 3).then_some(()));
    let name = |generation| format!("process 0 of run 0123456789 generation {generation}");
    let log = logged();
    let at = |text: String| log.find(&text).unwrap_or_else(|| panic!("`{text}` is not in {log}"));
    let waits = at(format!("{} waits: {} still holds `cpu`", name(772), name(771)));
    let ended = at(format!("{} ended with code 137", name(771)));
    let started = at(format!("started {}", name(772)));
    assert!(waits < ended && ended < started, "{log}");
    agent.stop().unwrap();
}

#[test]
fn of_two_that_are_on_a_device_the_one_that_its_run_has_left_is_waited_for() {
    logged();
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let mut options = options(coordinator.address(), dir.path(), deaf_rank("endless"));
    options.slots = 2.try_into().unwrap();
    let agent = Agent::start(options);
    let (old, stays, new) = (key(773, 0), key(774, 0), key(775, 0));
    coordinator.desire(vec![with_peers(&old), with_peers(&stays)]);
    coordinator.wait("steps of both", |memory| (memory.step(&old) > 1 && memory.step(&stays) > 1).then_some(()));
    coordinator.desire(vec![with_peers(&stays), with_peers(&new)]);
    coordinator.wait("steps of the next", |memory| (memory.step(&new) > 1).then_some(()));
    let name = |generation| format!("process 0 of run 0123456789 generation {generation}");
    let waits = format!("{} waits: {} still holds `cpu`", name(775), name(773));
    assert!(logged().contains(&waits), "{}", logged());
    agent.stop().unwrap();
}

#[test]
fn an_agent_has_a_name_of_its_own_that_stays_in_its_data_directory() {
    let coordinator = Coordinator::new();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (joined, dir) in [&dirs[0], &dirs[0], &dirs[1], &dirs[2]].into_iter().enumerate() {
        if joined == 3 {
            std::fs::copy(dirs[0].path().join("agent.id"), dir.path().join("agent.id")).unwrap();
        }
        let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
        until("it to join", || coordinator.memory().hellos.len() == joined + 1);
        agent.stop().unwrap();
    }
    let hellos = coordinator.memory().hellos.clone();
    assert!(hellos[0].agent.len() > 32);
    assert_eq!(hellos[0].agent, hellos[1].agent);
    assert_ne!(hellos[0].agent, hellos[2].agent);
    assert_ne!(hellos[0].agent, hellos[3].agent, "a copy is another one");
    assert_ne!(hellos[0].incarnation, hellos[1].incarnation);
}

#[test]
fn a_process_that_makes_no_progress_is_ended_and_one_that_waits_for_others_is_not() {
    let coordinator = Coordinator::new();
    let start = |mode| {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(coordinator.address(), dir.path(), fake_rank(mode));
        options.progress_limit = Some(Duration::from_millis(1_500));
        (Agent::start(options), dir)
    };
    let (waiting, _dir) = start("wait");
    let waits = key(5, 0);
    coordinator.desire(vec![with_peers(&waits)]);
    coordinator.hear("ready", &waits, |body| matches!(body, Body::Ready(_)).then_some(()));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(coordinator.memory().bodies(&waits).len(), 1, "and nothing else is passed on");
    waiting.stop().unwrap();

    let (agent, _dir) = start("hang");
    let hangs = key(6, 0);
    coordinator.desire(vec![with_peers(&hangs)]);
    let exit = exited(&coordinator, &hangs);
    let words =
        "it made no progress for 1 s (`progress_limit_s`) while training, after step 3; its last output has the stack";
    assert_eq!((exit.hung.as_str(), exit.cause()), (words, ExitCause::Unnamed));
    agent.stop().unwrap();

    // A process that never connects.
    let command = RankCommand { program: "/bin/sh".into(), args: vec!["-c".into(), "exec sleep 1000".into()] };
    let dir = tempfile::tempdir().unwrap();
    let mut silent = options(coordinator.address(), dir.path(), command);
    silent.progress_limit = Some(Duration::from_millis(1_500));
    let agent = Agent::start(silent);
    let never = key(7, 0);
    coordinator.desire(vec![with_peers(&never)]);
    assert!(exited(&coordinator, &never).hung.contains("while starting, after step 0"));
    agent.stop().unwrap();
}
