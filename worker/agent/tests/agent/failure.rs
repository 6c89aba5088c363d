//! Failures: coordinators that are away, processes that die, agents that are killed.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lockstep_agent::AgentError;
use lockstep_rpc::Exited;
use lockstep_rpc::process_message::Body;
use lockstep_support::{Signal, signal};

use crate::coordinator::{Coordinator, Key, Memory};
use crate::support::{
    Agent, assignment, deaf_rank, fake_rank, key, log_text, logged, options, spool_dir, until, with_peers,
};

fn exited(coordinator: &Coordinator, key: &Key) -> Exited {
    coordinator.hear("its end", key, |body| match body {
        Body::Exited(exit) => Some(exit),
        _ => None,
    })
}

/// Number of the process's reported steps; checks that none is missing or repeated.
fn whole_steps(coordinator: &Coordinator, key: &Key) -> u64 {
    let bodies = coordinator.memory().bodies(key);
    let steps = bodies.into_iter().filter_map(|body| match body {
        Body::Block(block) => Some(block.known().last_step),
        _ => None,
    });
    let steps: Vec<u64> = steps.collect();
    assert!(steps.iter().copied().eq(1..=steps.len() as u64), "{steps:?}");
    steps.len() as u64
}

#[test]
fn processes_train_on_without_a_coordinator_and_nothing_they_said_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let key = key(1, 0);
    coordinator.desire(vec![with_peers(&key)]);
    for round in 1..=3 {
        coordinator.wait("steps", |memory| (memory.step(&key) > 10).then_some(()));
        coordinator.kill();
        let before = coordinator.memory().step(&key);
        let goal = format!("step {}\n", before + 300);
        until("training without a coordinator", || log_text(dir.path(), &key).contains(&goal));
        assert_eq!(coordinator.memory().step(&key), before);
        coordinator.start();
        coordinator.wait("all of it", |memory| (memory.step(&key) > before + 300).then_some(()));
        assert!(whole_steps(&coordinator, &key) > 300);
        assert_eq!(coordinator.memory().hellos.len(), round + 1);
    }
    let hellos = coordinator.memory().hellos.clone();
    assert!(
        hellos.iter().all(|hello| hello.incarnation == hellos[0].incarnation),
        "the same agent stays the same incarnation"
    );
    agent.stop().unwrap();
    exited(&coordinator, &key);
    whole_steps(&coordinator, &key);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_and_a_finished_process_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::new();
    coordinator.memory().acknowledges = false;
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("train:5")));
    let key = key(1, 0);
    coordinator.desire(vec![with_peers(&key)]);
    coordinator.hear("the last word", &key, |body| matches!(body, Body::Finished(_)).then_some(()));
    assert!(!log_text(dir.path(), &key).contains("drained"));
    coordinator.kill();
    coordinator.start();
    coordinator.wait("a second time", |memory| (memory.repeated == 7).then_some(()));
    assert!(!log_text(dir.path(), &key).contains("drained"));
    coordinator.kill();
    coordinator.memory().acknowledges = true;
    coordinator.start();
    assert_eq!(exited(&coordinator, &key).code, 0);
    assert!(log_text(dir.path(), &key).ends_with("drained\n"));
    agent.stop().unwrap();
}

#[test]
fn a_killed_process_is_reported_with_its_signal_and_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let key = key(1, 0);
    coordinator.desire(vec![with_peers(&key)]);
    let pid = coordinator.hear("its pid", &key, |body| match body {
        Body::Ready(ready) => ready.environment["pid"].parse().ok(),
        _ => None,
    });
    coordinator.wait("steps", |memory| (memory.step(&key) > 3).then_some(()));
    signal(pid, Signal::KILL);
    let exit = exited(&coordinator, &key);
    assert_eq!(exit.code, 137);
    assert!(exit.output.contains("step 3\n"), "{}", exit.output);
    let steps = whole_steps(&coordinator, &key);
    assert!(exit.output.len() <= 4096 && exit.output.contains(&format!("step {}\n", steps - 1)), "{}", exit.output);
    agent.stop().unwrap();
}

#[test]
fn a_process_that_never_connects_or_fails_at_once_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), &dir.path().join("a"), fake_rank("die")));
    let key = key(1, 0);
    coordinator.desire(vec![assignment(&key).into()]);
    let exit = exited(&coordinator, &key);
    assert_eq!((exit.code, exit.output.as_str()), (7, "first line\nsecond line\ncannot go on\n"));
    assert_eq!(coordinator.memory().bodies(&key).len(), 1);
    agent.stop().unwrap();

    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), &dir.path().join("b"), fake_rank("fail")));
    coordinator.desire(vec![assignment(&key).into()]);
    assert_eq!(exited(&coordinator, &key).code, 1);
    let bodies = coordinator.memory().bodies(&key);
    assert!(matches!(&bodies[0], Body::Failed(failed) if failed.reason == "there is nothing to learn"), "{bodies:?}");
    assert_eq!(bodies.len(), 2);
    agent.stop().unwrap();
}

#[test]
fn a_process_of_a_build_that_does_not_fit_ends_its_run_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("earlier")));
    let key = key(1, 0);
    coordinator.desire(vec![assignment(&key).into()]);
    exited(&coordinator, &key);
    let bodies = coordinator.memory().bodies(&key);
    let Body::Failed(failed) = &bodies[0] else { panic!("{bodies:?}") };
    let expected = format!(
        "the rank process has an incompatible version: 0.1.0, protocol 1; this program has {}",
        env!("CARGO_PKG_VERSION")
    );
    assert!(failed.reason.starts_with(&expected), "{}", failed.reason);
    agent.stop().unwrap();
}

#[test]
fn a_process_that_hangs_up_and_lives_on_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), deaf_rank("vanish")));
    let key = key(1, 0);
    coordinator.desire(vec![assignment(&key).into()]);
    assert_eq!(exited(&coordinator, &key).code, 137);
    agent.stop().unwrap();
}

#[test]
fn what_cannot_be_started_fails_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let mut command = fake_rank("die");
    command.program = "/nonexistent/rank".into();
    let agent = Agent::start(options(coordinator.address(), dir.path(), command));
    let (absent, garbled) = (key(1, 0), key(2, 1));
    let mut bad = assignment(&garbled);
    bad.job = b"not a job".to_vec();
    coordinator.desire(vec![assignment(&absent).into(), bad.into()]);
    let reason = |key| {
        coordinator.hear("the reason", key, |body| match body {
            Body::Failed(failed) => Some(failed.reason),
            _ => None,
        })
    };
    let absent = reason(&absent);
    assert!(absent.starts_with("node `node-a` cannot start `/nonexistent/rank`: No such file"), "{absent}");
    let garbled = reason(&garbled);
    assert!(garbled.starts_with("its agent cannot read the job: "), "{garbled}");
    agent.stop().unwrap();
}

#[test]
fn a_process_for_which_the_disk_has_no_room_is_started_when_it_has() {
    logged();
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("die")));
    coordinator.wait("the agent", |memory| (memory.hellos.len() == 1).then_some(()));
    let key = ("dsk0000000".to_owned(), 1, 0);
    // A file where a directory should be stands for a full disk.
    let obstacle = dir.path().join("spool").join(&key.0);
    std::fs::write(&obstacle, "").unwrap();
    coordinator.desire(vec![assignment(&key).into()]);
    until("the first attempt", || logged().contains("cannot start process 0 of run dsk0000000 generation 1 yet"));
    std::fs::remove_file(&obstacle).unwrap();
    assert_eq!(exited(&coordinator, &key).code, 7);
    agent.stop().unwrap();
}

#[test]
fn a_process_that_the_disk_keeps_from_starting_is_told_and_its_run_can_go_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let mut options = options(coordinator.address(), dir.path(), fake_rank("die"));
    options.progress_limit = Some(Duration::from_millis(300));
    let agent = Agent::start(options);
    coordinator.wait("the agent", |memory| (memory.hellos.len() == 1).then_some(()));
    let key = ("dsk0000001".to_owned(), 1, 0);
    let obstacle = dir.path().join("spool").join(&key.0);
    std::fs::write(&obstacle, "").unwrap();
    coordinator.desire(vec![assignment(&key).into()]);
    let (reason, transient) = coordinator.hear("why it does not start", &key, |body| match body {
        Body::Failed(failed) => Some((failed.reason, failed.transient)),
        _ => None,
    });
    assert!(
        reason.starts_with("node `node-a` cannot start it: its data directory cannot be written: cannot use spool"),
        "{reason}"
    );
    assert!(transient, "another node, or another time, may do");
    agent.stop().unwrap();
}

#[test]
fn a_restarted_agent_says_what_was_not_acknowledged_and_that_its_processes_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    coordinator.memory().acknowledges = false;
    let key = key(1, 0);
    coordinator.desire(vec![with_peers(&key)]);
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    coordinator.wait("steps", |memory| (memory.step(&key) > 50).then_some(()));
    agent.kill();
    let before = whole_steps(&coordinator, &key);
    assert_eq!(coordinator.memory().repeated, 0);

    // The coordinator still desires the process: it must not run twice under the same numbers.
    coordinator.memory().acknowledges = true;
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let exit = exited(&coordinator, &key);
    assert_eq!((exit.code, exit.output.as_str()), (137, "its agent ended, and the process with it"));
    assert!(coordinator.memory().repeated as u64 > before, "ready and every step came again");
    assert!(whole_steps(&coordinator, &key) >= before);
    let incarnations: Vec<_> = coordinator.memory().hellos.iter().map(|hello| hello.incarnation.clone()).collect();
    assert_eq!(incarnations.len(), 2);
    assert_ne!(incarnations[0], incarnations[1]);
    let starts = |memory: &Memory| memory.hellos.iter().map(|hello| hello.start.clone()).collect::<Vec<_>>();
    assert_eq!(starts(&coordinator.memory()), ["", "0011"], "its reports are of that coordinator's runs");
    coordinator.desire(Vec::new());
    until("its spool to go", || !spool_dir(dir.path(), &key).exists());
    let (log, end) = coordinator.read_log(&key, |_| false);
    assert!(end && log.contains(&format!("step {}\n", before - 1)), "its log outlives the agent");
    agent.stop().unwrap();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    coordinator.wait("a hello", |memory| (memory.hellos.len() == 3).then_some(()));
    assert_eq!(starts(&coordinator.memory()), ["", "0011", ""], "nothing is left that could be mixed up");
    agent.stop().unwrap();
}

#[test]
fn a_dead_address_is_tried_again_and_the_log_says_so() {
    logged();
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::not_yet_started();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("die")));
    let words = format!("cannot reach the coordinator at {}: Connection refused", coordinator.address());
    until("the second attempt", || {
        let logged = logged();
        let lines: Vec<_> = logged.lines().filter(|line| line.contains(&words)).collect();
        lines.len() >= 2 && lines[0].ends_with("retrying in 0.25 s") && lines[1].ends_with("retrying in 0.5 s")
    });
    coordinator.start();
    coordinator.wait("the agent", |memory| (memory.hellos.len() == 1).then_some(()));
    agent.stop().unwrap();
}

#[test]
fn an_agent_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let first = Agent::start(options(coordinator.address(), dir.path(), fake_rank("die")));
    coordinator.wait("the agent", |memory| (memory.hellos.len() == 1).then_some(()));
    let second = Agent::start(options(coordinator.address(), dir.path(), fake_rank("die"))).end();
    assert!(matches!(second, Err(AgentError::DataDir(_))), "{second:?}");
    first.stop().unwrap();
    let nowhere = Agent::start(options("nowhere".into(), dir.path(), fake_rank("die"))).end();
    assert!(matches!(nowhere, Err(AgentError::Address { .. })), "{nowhere:?}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let no_dir = Agent::start(options(coordinator.address(), &file, fake_rank("die"))).end();
    assert!(matches!(no_dir, Err(AgentError::DataDir(_))), "{no_dir:?}");
}

#[test]
fn strangers_on_the_socket_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let key = key(1, 0);
    coordinator.desire(vec![with_peers(&key)]);
    coordinator.wait("steps", |memory| (memory.step(&key) > 3).then_some(()));
    let hello = |run: &str| {
        let hello = lockstep_rpc::ProcessHello { run: run.into(), generation: 1, ..Default::default() };
        lockstep_rpc::frame::encode(&lockstep_rpc::ProcessMessage { body: Some(Body::Hello(hello)) })
    };
    // An incomplete frame, a frame that is too long, no message, an unknown process, an invalid run, a process that is connected.
    let strange =
        [vec![0], vec![0xff; 8], b"\0\0\0\x03abc".to_vec(), hello("zzzzzzzzzz"), hello("no/../id"), hello(&key.0)];
    for bytes in strange {
        let mut stranger = UnixStream::connect(dir.path().join("agent.sock")).unwrap();
        stranger.write_all(&bytes).unwrap();
        stranger.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::copy(&mut stranger, &mut std::io::sink()).ok();
    }
    let now = coordinator.memory().step(&key);
    coordinator.wait("steps", |memory| (memory.step(&key) > now + 10).then_some(()));
    whole_steps(&coordinator, &key);
    agent.stop().unwrap();
}
