//! A process from its start to its end, without failures.

use lockstep_rpc::process_message::Body;
use lockstep_rpc::{Assignment, Restore};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::coordinator::{Coordinator, Desire};
use crate::support::{Agent, assignment, deaf_rank, fake_rank, key, options, spool_dir, until, with_peers};

#[test]
fn a_process_is_started_told_its_peers_heard_drained_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("train:20")));
    let (key, other) = (key(1, 0), key(1, 1));
    let restore = Some(Restore { checkpoint: b"a checkpoint".to_vec(), manifest: None });
    let begins = |key| Desire::from(Assignment { restore: restore.clone(), ..assignment(key) });
    coordinator.desire(vec![begins(&key), begins(&other)]);

    let ready = coordinator.hear("ready", &key, |body| match body {
        Body::Ready(ready) => Some(ready),
        _ => None,
    });
    assert_eq!(ready.address, "127.0.0.1:1");
    assert_eq!(ready.numerics["OMP_NUM_THREADS"], "3", "the job's environment reaches the process");
    assert_eq!(ready.environment["device"], "cpu");
    let of_other = coordinator.hear("the other", &other, |body| match body {
        Body::Ready(ready) => Some(ready.environment),
        _ => None,
    });
    assert_eq!([&ready.environment["restore"], &of_other["restore"]], ["a checkpoint"; 2]);
    assert_eq!(coordinator.memory().bodies(&key).len(), 1, "without peers nothing is trained");
    assert_eq!(coordinator.memory().hellos[0].devices.len(), 2);

    coordinator.desire(vec![with_peers(&key), with_peers(&other)]);
    for key in [&key, &other] {
        let exit = coordinator.hear("its end", key, |body| match body {
            Body::Exited(exit) => Some(exit),
            _ => None,
        });
        assert_eq!((exit.code, exit.output.ends_with("drained\n")), (0, true), "{}", exit.output);
        let bodies = coordinator.memory().bodies(key);
        assert_eq!(bodies.len(), 1 + 20 + 2, "ready, blocks, finished, exited");
        assert!(matches!(bodies[21], Body::Finished(_)));
    }
    let (log, end) = coordinator.read_log(&key, |_| false);
    assert!(log.starts_with("first line\nsecond line\npeers 127.0.0.1:1\nstep 1\nstep 2\n"), "{log}");
    assert!(log.ends_with("step 20\ndrained\n") && end);

    // A process that has ended is not started again while it is still desired.
    coordinator.desire(vec![with_peers(&key)]);
    until("the other's spool to go", || !spool_dir(dir.path(), &other).exists());
    assert_eq!(coordinator.memory().bodies(&key).len(), 23);
    assert!(spool_dir(dir.path(), &key).exists());
    coordinator.desire(Vec::new());
    until("its spool to go", || !spool_dir(dir.path(), &key).exists());
    coordinator.wait("heartbeats", |memory| (memory.heartbeats > 3).then_some(()));
    assert_eq!(coordinator.memory().repeated, 0);
    agent.stop().unwrap();
}

#[test]
fn what_is_no_longer_desired_is_terminated_and_then_killed() {
    for (command, code) in [(fake_rank("endless"), 128 + 15), (deaf_rank("endless"), 128 + 9)] {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::new();
        let agent = Agent::start(options(coordinator.address(), dir.path(), command));
        let key = key(4, 1);
        coordinator.desire(vec![with_peers(&key)]);
        coordinator.wait("steps", |memory| (memory.step(&key) > 3).then_some(()));
        coordinator.desire(Vec::new());
        let exited = coordinator.hear("its end", &key, |body| match body {
            Body::Exited(exit) => Some(exit.code),
            _ => None,
        });
        assert_eq!(exited, code);
        until("its spool to go", || !spool_dir(dir.path(), &key).exists());
        agent.stop().unwrap();
    }
}

#[test]
fn what_an_agent_writes_is_its_users_alone_also_in_a_directory_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), &data, fake_rank("endless")));
    let key = key(4, 1);
    coordinator.desire(vec![with_peers(&key)]);
    coordinator.wait("steps", |memory| (memory.step(&key) > 3).then_some(()));
    let (mut open, mut seen) = (vec![data], Vec::new());
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            // A temporary file may be gone by now.
            let Ok(metadata) = entry.metadata() else { continue };
            let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(metadata.permissions().mode() & 0o7777, expected, "{}", entry.path().display());
            seen.push(entry.file_name().into_string().unwrap());
            open.extend(Some(entry.path()).filter(|_| metadata.is_dir()));
        }
    }
    for name in ["LOCK", "agent.id", "agent.sock", "spool", "logs", "deleted", "00000000000000000001.segment"] {
        assert!(seen.iter().any(|seen| seen == name), "no {name} in {seen:?}");
    }
    agent.stop().unwrap();
}

/// The coordinator was restarted with another store: nobody would find the checkpoints of the process.
#[test]
fn a_process_that_writes_into_another_store_than_the_coordinator_has_now_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let key = key(4, 1);
    coordinator.desire(vec![with_peers(&key)]);
    coordinator.wait("steps", |memory| (memory.step(&key) > 3).then_some(()));
    coordinator.kill();
    coordinator.move_store();
    coordinator.start();
    let exited = coordinator.hear("its end", &key, |body| match body {
        Body::Exited(exit) => Some(exit.code),
        _ => None,
    });
    assert_eq!(exited, 128 + 15);
    agent.stop().unwrap();
}

#[test]
fn a_new_generation_takes_the_place_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let (old, new) = (key(1, 0), key(2, 0));
    coordinator.desire(vec![with_peers(&old)]);
    coordinator.wait("steps", |memory| (memory.step(&old) > 3).then_some(()));
    coordinator.desire(vec![with_peers(&new)]);
    coordinator.hear("the old one's end", &old, |body| matches!(body, Body::Exited(_)).then_some(()));
    coordinator.wait("steps", |memory| (memory.step(&new) > 3).then_some(()));
    agent.stop().unwrap();
    let code = coordinator.hear("the new one's end", &new, |body| match body {
        Body::Exited(exit) => Some(exit.code),
        _ => None,
    });
    assert_eq!(code, 128 + 15, "a leaving agent stops its processes and says so");
}

#[test]
fn a_log_is_read_while_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let key = key(1, 0);
    coordinator.desire(vec![with_peers(&key)]);
    let (log, end) = coordinator.read_log(&key, |text| text.contains("step 30\n"));
    assert!(log.contains("step 29\nstep 30\n") && !end, "{log}");
    coordinator.desire(Vec::new());
    let (log, end) = coordinator.read_log(&key, |_| false);
    assert!(end && log.len() > 100);
    let nobody = ("zzzzzzzzzz".to_owned(), 1, 0);
    assert_eq!(coordinator.read_log(&nobody, |_| false), (String::new(), true));
    agent.stop().unwrap();
}
