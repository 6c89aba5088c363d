//! Nodes that join, disconnect, leave, are lost and are removed.

use lockstep_common::Ending;
use lockstep_core::command::{FenceDevices, NodeForgotten, NodeJoined, NodeLost};
use lockstep_core::state::{NODES, Node, Presence};
use lockstep_core::{ClusterState, Command, Outcome, Refusal, ReportBody};

use super::cluster::{Cluster, devices};

fn presence(cluster: &Cluster, node: &str) -> Presence {
    cluster.state.node(&node.parse().unwrap()).unwrap().presence
}

/// An agent requests the name `a`.
fn ask(cluster: &mut Cluster, incarnation: &str, agent: &str, host: &str) -> Outcome {
    let (at_ms, node) = (cluster.now(), "a".parse().unwrap());
    let (incarnation, agent, host) = (incarnation.to_owned(), agent.to_owned(), host.to_owned());
    cluster.apply(&Command::NodeJoined(NodeJoined {
        at_ms,
        node,
        incarnation,
        agent,
        host,
        devices: devices(&["cpu"]),
    }))
}

fn forget(cluster: &mut Cluster, node: &str) -> Outcome {
    let (request, node) = (cluster.request(), node.parse().unwrap());
    cluster.apply(&Command::NodeForgotten(NodeForgotten { request, node }))
}

#[test]
fn a_detached_node_keeps_its_processes_and_takes_no_work() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.detach("b", true);
    assert_eq!(presence(&cluster, "b"), Presence::Alive, "that was a stream before this one");
    cluster.detach("b", false);
    assert_eq!((presence(&cluster, "b"), cluster.run(&run).state.generation), (Presence::Detached, 1));
    assert_eq!(cluster.desired("b").len(), 1);
    let large = cluster.submit(&["world={processes=2, min_processes=2}"]);
    assert_eq!(
        cluster.status(&large),
        "queued: needs 2 devices, 1 is free; 1 more is on a node whose worker is not connected"
    );
    cluster.join("b", "1", &["cpu", "cpu"]);
    assert_eq!((cluster.status(&large).as_str(), cluster.run(&run).state.generation), ("starting", 1));
    cluster.detach("b", false);
    cluster.lose("b", "1");
    assert_eq!((presence(&cluster, "b"), cluster.run(&run).state.generation), (Presence::Lost, 2));
}

#[test]
fn a_run_waits_for_gpus_that_will_be_back_and_does_not_end_up_on_cpus() {
    let mut cluster = Cluster::default();
    cluster.join("gpus", "1", &["cuda:0", "cuda:1"]);
    cluster.join("cpus", "1", &["cpu"; 4]);
    cluster.detach("gpus", false);
    let run = cluster.submit(&[]);
    assert_eq!(
        cluster.status(&run),
        "queued: needs 2 devices, 0 are free; 2 more are on nodes whose worker is not connected"
    );
    cluster.join("gpus", "1", &["cuda:0", "cuda:1"]);
    assert_eq!(cluster.desired("gpus").len(), 2);
}

#[test]
fn a_leaving_node_takes_no_work_and_is_gone_when_its_stream_ends() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.leave("b", "1");
    assert_eq!((presence(&cluster, "b"), cluster.run(&run).state.generation), (Presence::Leaving, 1));
    assert_eq!(cluster.desired("b").len(), 1, "its agent ends it, and says so");
    let leaving = ReportBody::Exited { code: 143, output: String::new(), ending: Some(Ending::NodeLeaving) };
    cluster.say(&run, 1, leaving);
    assert_eq!((cluster.run(&run).state.exits, cluster.desired("a").len(), cluster.desired("b").len()), (0, 2, 0));
    cluster.detach("b", false);
    assert_eq!((presence(&cluster, "b"), cluster.run(&run).state.generation), (Presence::Gone, 2));
    cluster.lose("b", "1");
    assert_eq!(presence(&cluster, "b"), Presence::Gone, "nobody waits for it");
    cluster.join("b", "2", &["cpu", "cpu"]);
    assert_eq!(presence(&cluster, "b"), Presence::Alive);
    // An agent that ends without reporting the ends of its processes.
    let second = cluster.submit(&["world={processes=2, min_processes=2}"]);
    assert_eq!(cluster.desired("b").len(), 2);
    cluster.leave("b", "2");
    cluster.detach("b", false);
    assert_eq!(cluster.run(&second).state.generation, 2);
}

#[test]
fn a_node_has_one_agent_at_a_time() {
    let mut cluster = Cluster::default();
    assert_eq!(ask(&mut cluster, "1", "x", "h1"), Outcome::Done);
    let refused = ask(&mut cluster, "9", "y", "h2");
    let Outcome::Refused(refusal @ Refusal::NodeTaken { .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(
        refusal.to_string(),
        "node name `a` is in use by an agent on host `h1`, so the agent on host `h2` cannot have it: start one of them with another \
         `worker --name`, or stop the first one"
    );
    assert!(
        matches!(ask(&mut cluster, "9", "x", "h2"), Outcome::Refused(_)),
        "a copy of its data directory, elsewhere"
    );
    cluster.detach("a", false);
    assert!(matches!(ask(&mut cluster, "9", "y", "h2"), Outcome::Refused(_)), "the first may be back");
    assert_eq!(ask(&mut cluster, "2", "x", "h1"), Outcome::Done, "the same agent, started again");
    cluster.lose("a", "2");
    assert_eq!(ask(&mut cluster, "9", "y", "h2"), Outcome::Done);
    assert!(matches!(ask(&mut cluster, "3", "x", "h1"), Outcome::Refused(_)));
}

#[test]
fn only_a_node_that_is_not_there_is_forgotten() {
    let mut cluster = Cluster::with_two_nodes();
    let alive = forget(&mut cluster, "a");
    let Outcome::Refused(refusal) = alive else { panic!("{alive:?}") };
    assert_eq!(refusal.to_string(), "cannot remove node `a`, which is alive: stop its worker first");
    cluster.detach("a", false);
    assert!(matches!(forget(&mut cluster, "a"), Outcome::Refused(Refusal::NodeThere { .. })));
    cluster.lose("a", "1");
    let fence = |cluster: &mut Cluster, fenced| {
        let (request, at_ms, node) = (cluster.request(), cluster.now(), "a".parse().unwrap());
        cluster.apply(&Command::Fence(FenceDevices { request, at_ms, node, device: None, fenced }));
    };
    fence(&mut cluster, true);
    assert!(matches!(forget(&mut cluster, "a"), Outcome::Refused(Refusal::NodeFenced(_))));
    fence(&mut cluster, false);
    assert_eq!(forget(&mut cluster, "a"), Outcome::Done);
    assert!(cluster.state.node(&"a".parse().unwrap()).is_none());
    assert!(matches!(forget(&mut cluster, "a"), Outcome::Refused(Refusal::NoNode(_))));
    let again = ClusterState::from_rows(cluster.store()).unwrap();
    assert_eq!(again.nodes().map(|node| node.id.to_string()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_node_that_an_earlier_build_wrote_is_read() {
    let read = |alive: bool| {
        let text = format!(
            r#"{{"id":"a","incarnation":"1","host":"h","devices":[],"alive":{alive},"changed_at_ms":5,"fences":{{}}}}"#
        );
        serde_json::from_str::<Node>(&text).unwrap()
    };
    assert_eq!((read(true).presence, read(false).presence), (Presence::Alive, Presence::Lost));
    assert_eq!(read(true).agent, "");
}

#[test]
fn there_are_only_so_many_nodes() {
    let mut state = ClusterState::default();
    let join = |name: String| {
        Command::NodeJoined(NodeJoined {
            at_ms: 1,
            node: name.parse().unwrap(),
            incarnation: "1".to_owned(),
            agent: String::new(),
            host: String::new(),
            devices: Vec::new(),
        })
    };
    for number in 0..NODES {
        assert_eq!(state.apply(number as u64 + 1, &join(format!("n{number}"))).outcome, Outcome::Done);
    }
    let one_more = join("one-more".to_owned());
    assert_eq!(state.apply(5_000, &one_more).outcome, Outcome::Refused(Refusal::TooManyNodes(NODES)));
    assert_eq!(state.apply(5_001, &join("n7".to_owned())).outcome, Outcome::Done, "a known one may come back");
    // The node that has been away for longest is removed to make room.
    for (at_ms, name) in [(3, "n8"), (2, "n7")] {
        state.apply(
            5_002,
            &Command::NodeLost(NodeLost { at_ms, node: name.parse().unwrap(), incarnation: "1".to_owned() }),
        );
    }
    assert_eq!(state.apply(5_004, &one_more).outcome, Outcome::Done);
    let is_known = |name: &str| state.node(&name.parse().unwrap()).is_some();
    assert!(!is_known("n7") && is_known("n8") && is_known("one-more"));
}
