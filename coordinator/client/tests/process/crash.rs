//! `kill -9` of the coordinator at many moments during submits: no acknowledged run is lost, and no submit makes two runs, also if
//! the client has to repeat it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Coordinator, DEADLINE, coord, write_job};
use lockstep_common::RequestId;
use lockstep_common::job::parse_toml;
use lockstep_rpc::control_client::ControlClient;
use lockstep_rpc::{DataFile, RunReply, SubmitRequest};
use lockstep_support::{Outcome, Process, Signal};
use tokio::sync::mpsc;
use tonic::Code;

/// Times that the coordinator is killed.
const KILLS: u64 = 12;

/// Clients that submit at the same time.
const CLIENTS: u64 = 4;

fn request(client: u64, number: u64, job: &[u8]) -> SubmitRequest {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&client.to_le_bytes());
    id[8..].copy_from_slice(&number.to_le_bytes());
    SubmitRequest {
        request_id: RequestId::from_bytes(id).to_string(),
        job: job.to_vec(),
        base_dir: format!("/{}", "x".repeat(4_000)),
        code: None,
        data: vec![DataFile { path: "data.csv".to_owned(), bytes: 0, digest: vec![0; 32] }],
    }
}

async fn submit(address: &str, request: &SubmitRequest) -> Option<String> {
    let mut client = ControlClient::connect(format!("http://{address}")).await.ok()?;
    match client.submit(request.clone()).await {
        Ok(reply) => {
            let RunReply { run } = reply.into_inner();
            Some(run)
        }
        Err(status) => {
            let gone = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
            assert!(gone.contains(&status.code()), "{status}");
            None
        }
    }
}

/// Submits jobs one after another and sends each acknowledged run to `acknowledged`, until the coordinator is gone. Returns the number of
/// the first job that was not acknowledged.
async fn submit_until_gone(
    address: String,
    client: u64,
    mut number: u64,
    job: Vec<u8>,
    acknowledged: mpsc::UnboundedSender<(u64, u64, String)>,
) -> u64 {
    loop {
        let Some(run) = submit(&address, &request(client, number, &job)).await else { return number };
        acknowledged.send((client, number, run)).unwrap();
        number += 1;
    }
}

fn canonical(dir: &Path) -> Vec<u8> {
    let path = write_job(dir, 1, 4);
    parse_toml(&fs::read_to_string(path).unwrap(), &[]).unwrap().canonical()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_no_run_is_made_twice() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let job = canonical(dir.path());
    let mut next = [0; CLIENTS as usize];
    let mut known: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for kill in 0..KILLS {
        let coordinator = Coordinator::start(&state);
        let (acknowledged, mut runs) = mpsc::unbounded_channel();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (address, first) = (coordinator.address.clone(), next[client as usize]);
                tokio::spawn(submit_until_gone(address, client, first, job.clone(), acknowledged.clone()))
            })
            .collect();
        drop(acknowledged);
        // Each kill comes later: after more acknowledgements, and in the middle of a write.
        let mut seen = 0;
        while seen <= 3 * kill {
            let (client, number, run) = runs.recv().await.expect("clients submit while it lives");
            seen += 1;
            known.insert((client, number), run);
        }
        tokio::time::sleep(Duration::from_micros(kill * 130)).await;
        coordinator.kill();
        for (client, task) in clients.into_iter().enumerate() {
            next[client] = task.await.unwrap();
        }
        while let Some((client, number, run)) = runs.recv().await {
            known.insert((client, number), run);
        }
    }

    let coordinator = Coordinator::start(&state);
    let listed = |coordinator: &Coordinator| -> Vec<String> {
        let rows = coordinator.ask(&["ps"]);
        rows.as_array().unwrap().iter().map(|row| row["run"].as_str().unwrap().to_owned()).collect()
    };
    // A repeated submit without an acknowledgement returns its earlier run, or makes a new one.
    for client in 0..CLIENTS {
        let number = next[client as usize];
        let run = submit(&coordinator.address, &request(client, number, &job)).await.unwrap();
        known.insert((client, number), run);
    }
    let mut runs = listed(&coordinator);
    let mut expected: Vec<String> = known.values().cloned().collect();
    assert!(expected.len() as u64 >= KILLS * 3, "{} runs", expected.len());
    runs.sort();
    expected.sort();
    assert_eq!(runs, expected, "exactly the acknowledged runs, each once");
    // All repeated submits return their runs.
    for ((client, number), run) in &known {
        assert_eq!(&submit(&coordinator.address, &request(*client, *number, &job)).await.unwrap(), run);
    }
    assert_eq!(listed(&coordinator).len(), runs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_again_by_itself_while_the_coordinator_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let job = write_job(dir.path(), 1, 4);
    let coordinator = Coordinator::start(&state);
    let address = coordinator.address.clone();
    // A command follows a run while the coordinator is killed and restarted at the same address.
    let run = coordinator.submit(&job);
    let mut follower = coord(&["resume", "0", "--addr", &address]);
    assert_eq!(follower.output().unwrap().status.code(), Some(4));
    let mut watcher = Process::start(&mut coord(&["submit", job.to_str().unwrap(), "--follow", "--addr", &address]));
    let second = crate::support::wait_for("the second run", || {
        let rows = coordinator.ask(&["ps"]);
        rows.as_array().unwrap().get(1).map(|row| row["run"].as_str().unwrap().to_owned())
    });
    coordinator.kill();
    let coordinator = Coordinator::start_with(&state, &["--listen", &address]);
    assert_eq!(coordinator.ask(&["ps"]).as_array().unwrap().len(), 2);
    let output = crate::support::run(&["cancel", &second, "--addr", &address]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let Outcome { code, printed: out, said } = watcher.end(DEADLINE);
    assert_eq!(code, 1, "{out}{said}");
    assert!(out.contains(&format!("run {second} (walk) cancelled")), "{out}");
    assert_ne!(run, second);
}

#[test]
fn ctrl_c_while_following_leaves_the_run_going_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let job = write_job(dir.path(), 1, 4);
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let follow = ["submit", job.to_str().unwrap(), "--follow", "--addr", &coordinator.address];
    let mut watcher = Process::start(&mut coord(&follow));
    let run = crate::support::wait_for("the run", || coordinator.ask(&["ps"])[0]["run"].as_str().map(str::to_owned));
    // Once it has printed the run's state it handles signals.
    watcher.line("state of the run", DEADLINE, |line| line.contains("queued").then_some(()));
    watcher.signal(Signal::INT);
    let Outcome { code, said, .. } = watcher.end(DEADLINE);
    assert_eq!(code, 130, "{said}");
    assert!(said.contains(&format!("run {run} continues: `coord show {run}`")), "{said}");
    assert_eq!(coordinator.ask(&["show", &run])["status"], "queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_coordinator_with_everything_acknowledged_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let job = canonical(dir.path());
    Coordinator::start(&state).kill();
    let bytes = fs::metadata(state.join("state.redb")).unwrap().len();
    // A limit on the size of files stands for a full disk. With its signal ignored, a write beyond it fails.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512 + 1024);
    let coordinator = Coordinator::start_under(&["sh", "-c", &script], &state, &[]);
    let mut acknowledged = Vec::new();
    while let Some(run) = submit(&coordinator.address, &request(0, acknowledged.len() as u64, &job)).await {
        acknowledged.push(run);
        assert!(acknowledged.len() < 20_000, "the limit does not hold");
    }
    let Outcome { code, said, .. } = coordinator.ended();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("error: cannot write `") && said.contains("state.redb`"), "{said}");

    let coordinator = Coordinator::start(&state);
    let rows = coordinator.ask(&["ps"]);
    let runs: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["run"].as_str().unwrap()).collect();
    assert!(!acknowledged.is_empty() && acknowledged.iter().all(|run| runs.contains(&run.as_str())));
}
