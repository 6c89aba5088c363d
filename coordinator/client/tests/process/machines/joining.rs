//! Nodes that may join: those of this version that see the store.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::{Hello, StoreSeen, Welcome};
use lockstep_store::shared::answer;
use tonic::{Code, Status};

use crate::agent::{Agent, hello, ready};
use crate::support::{Coordinator, copy, wait_for, write_job};

/// The refusal of a node that sees this of the store.
async fn refused(coordinator: &Coordinator, see: impl FnOnce(&Welcome) -> StoreSeen) -> Status {
    let first = Say::Hello(hello("node-a", "1", 1));
    let seeing = |welcome: &Welcome| (see(welcome), None);
    let mut agent = Agent::open_seeing(&coordinator.address, first, seeing).await.expect("a welcome");
    agent.listen().await.expect_err("not taken")
}

/// Number of files of join checks in the store of the data directory `state`.
fn left(state: &Path) -> usize {
    let names = fs::read_dir(state.join("store/tmp")).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with("join-")).count()
}

#[tokio::test]
async fn a_node_that_does_not_share_the_store_is_refused_by_name_with_both_paths() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir_all(state.join("store/tmp")).unwrap();
    fs::write(state.join("store/tmp/join-left.owner"), "by a coordinator that was killed").unwrap();
    let left_at = SystemTime::now() - Duration::from_hours(2);
    fs::File::open(state.join("store/tmp/join-left.owner")).unwrap().set_modified(left_at).unwrap();
    let coordinator = Coordinator::start(&state);
    assert_eq!(left(&state), 0);

    let path = "/b/store".to_owned();
    let failed = "cannot read `/b/store/tmp/join-x.owner`: No such file or directory (os error 2)".to_owned();
    let (of_node, own) = (failed.clone(), state.join("store").canonicalize().unwrap());
    let status =
        refused(&coordinator, |_| StoreSeen { failed: of_node, path: path.clone(), ..StoreSeen::default() }).await;
    let expected = format!(
        "node `node-a` does not share the store: it is `{}` on the coordinator's machine, and the node looked at `/b/store` \
         on `test`: the node {failed}; mount the same directory on both machines, or set `store.path` of the coordinator to a \
         shared one",
        own.display()
    );
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, expected.as_str()));

    // Another store under the same path, which has a file of that name.
    let other = StoreSeen { found: "other".into(), wrote: "seen".into(), path: path.clone(), ..StoreSeen::default() };
    let status = refused(&coordinator, |_| other).await;
    assert!(status.message().contains("the node read another text than the coordinator wrote"), "{status}");

    // The node can read the store, but the coordinator does not see the node's file.
    let status = refused(&coordinator, |welcome| {
        let found = answer(Path::new(&welcome.store), &welcome.check, "seen").unwrap().found.clone();
        StoreSeen { found, wrote: "seen".into(), path, ..StoreSeen::default() }
    })
    .await;
    assert!(
        status.message().contains("the coordinator cannot read") && status.message().contains(".guest"),
        "{status}"
    );

    assert_eq!(coordinator.ask(&["nodes"]), serde_json::json!([]), "none was taken");
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    agent.until_desired("taken", <[_]>::is_empty).await;
    drop(agent);
    wait_for("nothing is left in the store", || (left(&state) == 0).then_some(()));
}

#[tokio::test]
async fn an_agent_of_another_version_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let older = Hello { protocol: 0, version: "0.0.9".into(), ..hello("node-a", "1", 1) };
    let Err(status) = Agent::open(&coordinator.address, Say::Hello(older)).await else { panic!("taken") };
    let expected = format!(
        "node `node-a` has an incompatible version: 0.0.9, protocol 1; this program has {}, protocol {}. ",
        env!("CARGO_PKG_VERSION"),
        lockstep_rpc::PROTOCOL
    );
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with(&expected), "{}", status.message());
}

#[tokio::test]
async fn a_coordinator_on_an_older_copy_of_its_state_refuses_nodes_that_know_more() {
    let dir = tempfile::tempdir().unwrap();
    let (state, old) = (dir.path().join("state"), dir.path().join("old"));
    let coordinator = Coordinator::start(&state);
    let run = coordinator.submit(&write_job(dir.path(), 1, 4));
    coordinator.terminate();
    copy(&state, &old);

    let coordinator = Coordinator::start(&state);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    agent.until_desired("the process", |assigned| assigned.len() == 1).await;
    agent.tell(&(run, 1, 0), 1, ready(0)).await;
    let (start, acknowledged) = (agent.welcome.start.clone(), agent.applied);
    assert!(!start.is_empty() && acknowledged > 0);
    drop(agent);
    coordinator.terminate();
    let knows = |acknowledged| Hello { start: start.clone(), acknowledged, ..hello("node-a", "1", 1) };

    let coordinator = Coordinator::start(&state);
    Agent::open(&coordinator.address, Say::Hello(knows(acknowledged))).await.expect("it has forgotten nothing");
    let Err(status) = Agent::open(&coordinator.address, Say::Hello(knows(1 << 40))).await else { panic!("taken") };
    assert_eq!(status.code(), Code::FailedPrecondition);
    coordinator.terminate();

    fs::remove_dir_all(&state).unwrap();
    copy(&old, &state);
    let coordinator = Coordinator::start(&state);
    let Err(status) = Agent::open(&coordinator.address, Say::Hello(knows(0))).await else { panic!("taken") };
    assert_eq!(status.code(), Code::FailedPrecondition);
    let words = "this coordinator has forgotten reports of node `node-a`: it was started on an older copy of its data directory";
    assert!(status.message().starts_with(words), "{}", status.message());
    Agent::attach(&coordinator.address, "node-a", "2", 1).await;
}

/// An unmounted data directory looks new: such a coordinator must not end the processes of a node.
#[tokio::test]
async fn a_coordinator_with_a_new_data_directory_takes_nodes_whose_reports_nobody_has() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let knows = |acknowledged| Hello { start: "other".into(), acknowledged, ..hello("node-a", "1", 1) };
    Agent::open(&coordinator.address, Say::Hello(knows(0))).await.expect("there is nothing to mix up");
    let Err(status) = Agent::open(&coordinator.address, Say::Hello(knows(9))).await else { panic!("taken") };
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("or stop the worker on `node-a`, delete `spool`"), "{}", status.message());
}
