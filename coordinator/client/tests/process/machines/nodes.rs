//! Which agent may report for a node, and which nodes get work.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{Empty, Exited, Failed, Finished, Hello};
use lockstep_support::Signal;
use tonic::Code;

use crate::agent::{Agent, block, finished, hello, ready};
use crate::support::{Coordinator, DEADLINE, wait_for, write_job};

fn with_lease(dir: &Path, lease_ms: u64) -> Coordinator {
    let config = dir.join("coordinator.toml");
    fs::write(&config, format!("lease_ms = {lease_ms}\ntick_ms = 10\n")).unwrap();
    Coordinator::start_with(&dir.join("state"), &["--config", config.to_str().unwrap()])
}

fn on_host(host: &str, agent: &str, incarnation: &str) -> Say {
    Say::Hello(Hello { host: host.into(), agent: agent.into(), ..hello("node-a", incarnation, 1) })
}

fn state_of(coordinator: &Coordinator, node: &str) -> String {
    let nodes = coordinator.ask(&["nodes"]);
    let found = nodes.as_array().unwrap().iter().find(|found| found["id"] == node);
    found.map_or("forgotten".to_owned(), |found| found["state"].as_str().unwrap().to_owned())
}

/// Sends heartbeats until `task` is done.
async fn beating<T>(agent: &Agent, task: impl Future<Output = T>) -> T {
    let mut task = std::pin::pin!(task);
    loop {
        match tokio::time::timeout(Duration::from_millis(100), &mut task).await {
            Ok(done) => return done,
            Err(_) => agent.beat().await,
        }
    }
}

/// Ends the stream, and waits until the coordinator has noticed.
async fn hang_up(agent: Agent) {
    drop(agent);
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_second_agent_of_a_nodes_name_is_refused_and_the_first_is_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = with_lease(dir.path(), 1_000);
    let mut first = Agent::open(&coordinator.address, on_host("h1", "x", "1")).await.unwrap();
    let run = coordinator.submit(&write_job(dir.path(), 1, 4));
    first.until_desired("the process", |assigned| assigned.len() == 1).await;
    let begun = Instant::now();
    let mut second = Agent::open(&coordinator.address, on_host("h2", "y", "9")).await.unwrap();
    let status = beating(&first, second.listen()).await.expect_err("it is refused, and told no assignment");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "node name `node-a` is in use by an agent on host `h1`, so the agent on host `h2` cannot have it: start one of them with \
         another `worker --name`, or stop the first one"
    );
    assert!(begun.elapsed() >= Duration::from_secs(1), "the first had its lease to show that it lives");
    first.tell(&(run.clone(), 1, 0), 1, ready(0)).await;
    assert_eq!(coordinator.ask(&["show", &run])["generation"], 1);

    // The same agent, restarted, gets its name at once. Another one gets it when the first is silent.
    let _again = Agent::open(&coordinator.address, on_host("h1", "x", "2")).await.unwrap();
    wait_for("the next generation", || (coordinator.ask(&["show", &run])["generation"] == 2).then_some(()));
    let mut third = Agent::open(&coordinator.address, on_host("h2", "y", "9")).await.unwrap();
    third.until_desired("the process", |assigned| assigned.len() == 1 && assigned[0].generation == 3).await;
}

#[tokio::test]
async fn no_node_speaks_for_the_process_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let mut owner = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let run = coordinator.submit(&write_job(dir.path(), 1, 4));
    owner.until_desired("the process", |assigned| assigned.len() == 1).await;
    let process = (run.clone(), 1, 0);
    let mut stranger = Agent::attach(&coordinator.address, "node-b", "1", 1).await;
    let lies = [
        ready(0),
        Said::Failed(Failed { reason: "a lie".into(), transient: false }),
        finished(4, 1),
        Said::Exited(Exited { code: 1, ..Exited::default() }),
    ];
    for lie in lies {
        // It is acknowledged, so that the agent drops it, and changes nothing.
        stranger.tell(&process, 1, lie).await;
        let view = coordinator.ask(&["show", &run]);
        assert_eq!((&view["status"], &view["generation"]), (&"starting".into(), &1.into()), "{view:#}");
    }
    owner.tell(&process, 1, ready(0)).await;
    owner.tell(&process, 2, block(1..=2, 1)).await;
    assert_eq!(coordinator.ask(&["show", &run])["step"], 2);
    assert!(coordinator.log().contains("it came from the agent of node `node-b` (incarnation 1)"));
}

#[tokio::test]
async fn a_report_that_cannot_be_meant_fails_its_run_and_no_other_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 2).await;
    let job = write_job(dir.path(), 1, 4);
    let (broken, sound) = (coordinator.submit(&job), coordinator.submit(&job));
    agent.until_desired("both", |assigned| assigned.len() == 2).await;
    let short = Said::Finished(Finished { step: 4, state: vec![1] });
    agent.tell(&(broken.clone(), 1, 0), 1, short).await;
    let reason = &coordinator.ask(&["show", &broken])["reason"];
    assert!(
        reason.as_str().unwrap().contains("the coordinator rejected its report: field `finished.state`"),
        "{reason}"
    );
    agent.tell(&(sound.clone(), 1, 0), 1, ready(0)).await;
    agent.tell(&(sound.clone(), 1, 0), 2, block(1..=2, 1)).await;
    assert_eq!(coordinator.ask(&["show", &sound])["step"], 2);
}

#[tokio::test]
async fn nodes_that_are_away_or_leave_get_no_work_and_are_forgotten_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = with_lease(dir.path(), 3_000);
    let mut leaving = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let mut away = Agent::attach(&coordinator.address, "node-b", "1", 1).await;
    for agent in [&mut leaving, &mut away] {
        agent.until_desired("taken", <[_]>::is_empty).await;
    }
    leaving.say(Say::Leaving(Empty {})).await;
    hang_up(away).await;
    for (node, state) in [("node-a", "leaving"), ("node-b", "detached")] {
        wait_for(state, || (state_of(&coordinator, node) == state).then_some(()));
    }
    let run = coordinator.submit(&write_job(dir.path(), 1, 4));
    let view = coordinator.ask(&["show", &run]);
    let reason = "needs 1 device, 0 are free; 1 more is on a node whose worker is not connected";
    assert_eq!((&view["status"], &view["reason"]), (&"queued".into(), &reason.into()), "{view:#}");
    let refused = coordinator.coord(&["node", "remove", "node-a"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success()
            && words.contains("cannot remove node `node-a`, which is leaving: stop its worker first"),
        "{words}"
    );
    hang_up(leaving).await;
    wait_for("gone", || (state_of(&coordinator, "node-a") == "gone").then_some(()));
    assert!(coordinator.coord(&["node", "remove", "node-a"]).status.success());
    assert_eq!(state_of(&coordinator, "node-a"), "forgotten");
    wait_for("lost", || (state_of(&coordinator, "node-b") == "lost").then_some(()));

    // A coordinator that has just started does not know yet which nodes are alive.
    let mut back = Agent::attach(&coordinator.address, "node-b", "1", 1).await;
    back.until_desired("the process", |assigned| assigned.len() == 1).await;
    coordinator.kill();
    let coordinator = with_lease(dir.path(), 30_000);
    wait_for("detached", || (state_of(&coordinator, "node-b") == "detached").then_some(()));
    assert_eq!(coordinator.ask(&["show", &run])["generation"], 1);
    let mut back = Agent::attach(&coordinator.address, "node-b", "1", 1).await;
    back.until_desired("the same process", |assigned| assigned.len() == 1 && assigned[0].generation == 1).await;
}

#[tokio::test]
async fn a_node_that_says_that_it_leaves_and_stays_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("coordinator.toml");
    fs::write(&config, "leave_ms = 300\ntick_ms = 10\n").unwrap();
    let coordinator = Coordinator::start_with(&dir.path().join("state"), &["--config", config.to_str().unwrap()]);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    agent.until_desired("taken", <[_]>::is_empty).await;
    let begun = Instant::now();
    agent.say(Say::Leaving(Empty {})).await;
    // Long before the end of its lease.
    let ended = tokio::time::timeout(Duration::from_secs(5), async { while agent.listen().await.is_ok() {} }).await;
    assert!(ended.is_ok() && begun.elapsed() >= Duration::from_millis(300), "its stream ends, and not at once");
    wait_for("lost", || (state_of(&coordinator, "node-a") == "lost").then_some(()));
}

#[tokio::test]
async fn a_coordinator_that_stood_still_blames_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = with_lease(dir.path(), 1_000);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let run = coordinator.submit(&write_job(dir.path(), 1, 4));
    agent.until_desired("the process", |assigned| assigned.len() == 1).await;
    for _ in 0..3 {
        // No message is sent meanwhile that it could read afterwards.
        coordinator.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        coordinator.signal(Signal::CONT);
        tokio::time::sleep(Duration::from_millis(300)).await;
        agent.beat().await;
    }
    assert_eq!(
        (state_of(&coordinator, "node-a").as_str(), &coordinator.ask(&["show", &run])["generation"]),
        ("alive", &1.into())
    );
    assert!(coordinator.log().contains("this coordinator stood still"));
}

#[tokio::test]
async fn a_node_that_takes_a_process_and_says_nothing_of_it_gives_the_run_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("coordinator.toml");
    fs::write(&config, "start_limit_s = 1\ntick_ms = 10\n").unwrap();
    let coordinator = Coordinator::start_with(&dir.path().join("state"), &["--config", config.to_str().unwrap()]);
    let mut silent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let run = coordinator.submit(&write_job(dir.path(), 1, 4));
    silent.until_desired("the process", |assigned| assigned.len() == 1).await;
    let mut other = Agent::attach(&coordinator.address, "node-b", "1", 1).await;
    other.until_desired("the process", |assigned| assigned.len() == 1 && assigned[0].generation == 2).await;
    let view = coordinator.ask(&["show", &run]);
    let reason = "it was not ready 1 s after the run was placed (`start_limit_s`)";
    assert!(view["last_exit"].to_string().contains(reason), "{view:#}");
    assert_eq!(view["transients"], 1);
    let shown = String::from_utf8(coordinator.coord(&["show", &run]).stdout).unwrap();
    assert!(shown.contains("crashes: 0, transient failures: 1 (since the last checkpoint)"), "{shown}");
    other.tell(&(run.clone(), 2, 0), 1, ready(0)).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(coordinator.ask(&["show", &run])["generation"], 2, "it has begun");
}

#[tokio::test]
async fn nodes_that_are_away_for_longer_than_is_set_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("coordinator.toml");
    fs::write(&config, "forget_node_s = 1\nlease_ms = 1000\ntick_ms = 10\n").unwrap();
    let coordinator = Coordinator::start_with(&dir.path().join("state"), &["--config", config.to_str().unwrap()]);
    let mut agents = Vec::new();
    for node in ["node-a", "node-b", "node-c"] {
        let mut agent = Agent::attach(&coordinator.address, node, "1", 1).await;
        agent.until_desired("taken", <[_]>::is_empty).await;
        agents.push(agent);
    }
    let (lost, leaving, stays) = (agents.remove(0), agents.remove(0), agents.remove(0));
    leaving.say(Say::Leaving(Empty {})).await;
    let begun = Instant::now();
    hang_up(lost).await;
    hang_up(leaving).await;
    let forgotten = async {
        loop {
            let states = ["node-a", "node-b"].map(|node| state_of(&coordinator, node));
            assert!(begun.elapsed() < DEADLINE, "{states:?}");
            if states == ["forgotten", "forgotten"] {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    beating(&stays, forgotten).await;
    assert_eq!(state_of(&coordinator, "node-c"), "alive");
    assert!(begun.elapsed() >= Duration::from_secs(1), "one is lost after its lease, and both are away for a second");
}

#[tokio::test]
async fn a_run_is_tried_again_as_often_as_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("coordinator.toml");
    fs::write(&config, "tick_ms = 10\n[retries]\ncrashes = 2\n").unwrap();
    let coordinator = Coordinator::start_with(&dir.path().join("state"), &["--config", config.to_str().unwrap()]);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let run = coordinator.submit(&write_job(dir.path(), 1, 4));
    for generation in [1, 2] {
        agent
            .until_desired("the process", |assigned| assigned.len() == 1 && assigned[0].generation == generation)
            .await;
        agent.tell(&(run.clone(), generation, 0), 1, Said::Exited(Exited { code: 1, ..Exited::default() })).await;
    }
    let shown = String::from_utf8(coordinator.coord(&["show", &run]).stdout).unwrap();
    assert!(shown.contains("crashes: 2, transient failures: 0"), "{shown}");
    assert_eq!(coordinator.ask(&["show", &run])["status"], "failed", "{shown}");
}
