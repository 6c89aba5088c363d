//! Archived runs are only in the database, and clients see no difference.

use std::fs;
use std::time::Duration;

use lockstep_rpc::Exited;
use lockstep_rpc::process_message::Body as Said;

use crate::agent::{Agent, block, finished, ready};
use crate::support::{Coordinator, fails, write_job};

/// Trains a run of four steps to its end, and returns its id.
async fn train(coordinator: &Coordinator, agent: &mut Agent, dir: &std::path::Path) -> String {
    let run = coordinator.submit(&write_job(dir, 1, 4));
    agent.until_desired("the process", |assigned| assigned.len() == 1 && assigned[0].run == run).await;
    let process = (run.clone(), 1, 0);
    agent.tell(&process, 1, ready(0)).await;
    agent.tell(&process, 2, block(1..=4, 1)).await;
    let share = agent.share(4, 0);
    agent.tell(&process, 3, share).await;
    agent.until_desired("the commit", |assigned| assigned[0].save.committed).await;
    agent.tell(&process, 4, finished(4, 1)).await;
    agent.tell(&process, 5, Said::Exited(Exited::default())).await;
    agent.until_desired("nothing", <[_]>::is_empty).await;
    run
}

#[tokio::test]
async fn runs_that_ended_long_ago_are_what_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("coordinator.toml");
    fs::write(&config, "ended_in_memory = 1\ntick_ms = 10\n").unwrap();
    let with = ["--config", config.to_str().unwrap()];
    let coordinator = Coordinator::start_with(&dir.path().join("state"), &with);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let first = train(&coordinator, &mut agent, dir.path()).await;
    let before = coordinator.ask(&["show", &first]);
    let record = coordinator.ask(&["show", &first, "--metrics"]);
    let mut runs = vec![first.clone()];
    for _ in 0..2 {
        runs.push(train(&coordinator, &mut agent, dir.path()).await);
    }
    // Several ticks, which archive ended runs.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let check = |coordinator: &Coordinator| {
        assert_eq!(coordinator.ask(&["show", &first]), before);
        assert_eq!(coordinator.ask(&["show", &first[..7]]), before);
        assert_eq!(coordinator.ask(&["show", &first, "--metrics"]), record);
        let listed = |limit: &[&str]| -> Vec<String> {
            let listed = coordinator.ask(&[&["ps"], limit].concat());
            listed.as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(listed(&[]), runs);
        assert_eq!(listed(&["--limit", "2"]), runs[1..]);
        assert_eq!(listed(&["--limit", "1", "--where", "ranks=1"]), runs[2..]);
        assert_eq!(listed(&["--where", "ranks=1"]), runs);
        let words = fails(&["ps", "--where", "nothing=1", "--addr", &coordinator.address], 4);
        assert!(words.contains("no run's job has a key `nothing`"), "{words}");
        let few = coordinator.coord(&["ps", "--limit", "1"]);
        let (table, beside) = (String::from_utf8(few.stdout).unwrap(), String::from_utf8(few.stderr).unwrap());
        assert!(table.contains(&runs[2]) && !table.contains(&runs[1]), "{table}");
        let words = "2 older runs are not shown: `--limit N` shows the newest N runs, `--all` shows all";
        assert!(beside.contains(words), "{beside}");
        let few = coordinator.coord(&["ps", "--limit", "1", "--where", "ranks=1"]);
        let beside = String::from_utf8(few.stderr).unwrap();
        assert!(beside.contains("2 older runs are not searched"), "{beside}");
        let all = coordinator.coord(&["ps", "--all"]);
        let (table, beside) = (String::from_utf8(all.stdout).unwrap(), String::from_utf8(all.stderr).unwrap());
        assert!(runs.iter().all(|run| table.contains(run)) && beside.is_empty(), "{table}{beside}");
        assert_eq!(coordinator.ask(&["checkpoints", &first]).as_array().unwrap().len(), 1);
        assert_eq!(coordinator.ask(&["checkpoints"]).as_array().unwrap().len(), 3);
        let checkpoint = before["checkpoints"][0]["id"].as_str().unwrap();
        let manifest = coordinator.coord(&["manifest", checkpoint]).stdout;
        assert!(String::from_utf8(manifest).unwrap().contains(&first));
        let words = fails(&["cancel", &first, "--addr", &coordinator.address], 3);
        assert!(words.contains("has already ended: finished"), "{words}");
        let words = fails(&["resume", checkpoint, "--addr", &coordinator.address], 3);
        assert!(words.contains("nothing is left to train"), "{words}");
    };
    check(&coordinator);
    drop(agent);
    let log = coordinator.log();
    assert_eq!(log.matches("archiving the run").count(), 2, "{log}");
    let coordinator = Coordinator::start_with(&dir.path().join("state"), &with);
    check(&coordinator);
    let words = fails(&["logs", &first, "--addr", &coordinator.address], 5);
    assert!(words.contains("node `node-a` is not connected"), "where its log is, is known: {words}");
    let tagged = coordinator.coord(&["tag", &first, "kept"]);
    assert!(tagged.status.success(), "{tagged:?}");
    assert_eq!(coordinator.ask(&["show", &first])["tags"], serde_json::json!(["kept"]));
}
