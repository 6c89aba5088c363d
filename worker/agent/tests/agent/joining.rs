//! The check at join that an agent sees the store, and refusals by the coordinator.

use std::fs;

use lockstep_agent::AgentError;

use crate::coordinator::{Coordinator, WROTE};
use crate::support::{Agent, fake_rank, key, logged, options, until, with_peers};

#[test]
fn a_node_reads_what_the_coordinator_wrote_and_writes_an_answer_that_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let seen = coordinator.wait("its word", |memory| memory.seen.first().cloned());
    assert_eq!((seen.found.as_str(), seen.failed.as_str(), seen.wrote.len()), (WROTE, "", 32));
    assert_eq!(seen.path, coordinator.store().canonicalize().unwrap().display().to_string());
    let files = || fs::read_dir(coordinator.store().join("tmp")).unwrap().count();
    until("its file to go", || files() == 1);
    agent.stop().unwrap();
}

#[test]
fn an_agent_that_is_refused_at_its_first_join_ends_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    coordinator.memory().refuses = Some("node `node-a` does not share the store".into());
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let error = agent.end().unwrap_err();
    let expected = format!(
        "the coordinator at {} refused this node: node `node-a` does not share the store",
        coordinator.address()
    );
    assert!(matches!(&error, AgentError::Refused(why) if *why == expected), "{error}");
}

#[test]
fn an_agent_whose_processes_train_is_refused_without_harm_to_them() {
    logged();
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::new();
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let key = key(1, 0);
    coordinator.desire(vec![with_peers(&key)]);
    coordinator.wait("steps", |memory| (memory.step(&key) > 10).then_some(()));
    coordinator.kill();
    coordinator.memory().refuses = Some("its store is not mounted".into());
    coordinator.start();
    until("the refusal", || logged().contains("refused this node: its store is not mounted; retrying in"));
    let before = coordinator.memory().step(&key);
    coordinator.memory().refuses = None;
    coordinator.wait("more steps", |memory| (memory.step(&key) > before).then_some(()));
    agent.stop().unwrap();
}

#[test]
fn a_coordinator_of_another_version_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new();
    coordinator.memory().protocol = 7;
    let agent = Agent::start(options(coordinator.address(), dir.path(), fake_rank("endless")));
    let error = agent.end().unwrap_err().to_string();
    let expected = format!(
        "the coordinator has an incompatible version: 1.2.3, protocol 7; this program has {}, protocol {}. ",
        env!("CARGO_PKG_VERSION"),
        lockstep_rpc::PROTOCOL
    );
    assert!(error.contains(&expected), "{error}");
}
