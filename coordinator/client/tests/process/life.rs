//! The life of a run as an agent sees it, with the real coordinator: placement, readiness, reports, checkpoints, a dead process, a
//! killed coordinator, the end.

use std::path::Path;

use crate::agent::{Agent, Process, block, final_state, finished, hello, loss, ready};
use crate::support::{Coordinator, coord, fails, wait_for, write_job};
use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{Manifest, Piece};
use lockstep_rpc::control_client::ControlClient;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{Assignment, Exited, LogReply, ReportsRequest, agent_message::Body as Say};
use lockstep_store::BlobStore;
use lockstep_support::Signal;
use serde_json::Value;

fn process(run: &str, generation: u64, process: u32) -> Process {
    (run.to_owned(), generation, process)
}

/// Step and loss of every reported step.
fn losses(coordinator: &Coordinator, run: &str) -> Vec<(u64, f64)> {
    let metrics = coordinator.ask(&["show", run, "--metrics"]);
    let step = |step: &Value| (step["step"].as_u64().unwrap(), step["loss"].as_f64().unwrap());
    metrics["steps"].as_array().unwrap().iter().map(step).collect()
}

fn exited(code: i32) -> Said {
    Said::Exited(Exited { code, output: "last words".into(), ..Exited::default() })
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn a_run_lives_through_a_dead_process_and_a_killed_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("state");
    let job = write_job(dir.path(), 2, 4);
    let coordinator = Coordinator::start(&state_dir);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 2).await;
    assert_eq!(agent.welcome.lease_ms, 10_000);
    agent.until_desired("nothing to run yet", <[_]>::is_empty).await;

    // Placed at once, on two devices; the peers are not known yet.
    let run = coordinator.submit(&job);
    let assigned = agent.until_desired("two processes", |assigned| assigned.len() == 2).await;
    let job_text = JobSpec::from_canonical(&assigned[0].job).expect("a sound job");
    assert_eq!((job_text.name.as_str(), job_text.steps), ("walk", 4));
    for (number, assignment) in (0..).zip(&assigned) {
        assert_eq!((&assignment.run, assignment.generation, assignment.process), (&run, 1, number));
        assert_eq!((assignment.processes, assignment.device.as_str(), assignment.secret.len()), (2, "cpu", 32));
        assert_eq!(Path::new(&assignment.store), state_dir.join("store"));
        assert_eq!(Path::new(&assignment.base_dir), dir.path().canonicalize().unwrap());
        assert!(assignment.restore.is_none() && assignment.peers.is_empty());
        assert_eq!((assignment.data.len(), assignment.data[0].path.as_str()), (1, "data.csv"));
    }
    assert_eq!(coordinator.ask(&["show", &run])["status"], "starting");

    // Both ready: the peers are named, and the secret stays.
    let (p0, p1) = (process(&run, 1, 0), process(&run, 1, 1));
    agent.tell(&p0, 1, ready(0)).await;
    agent.tell(&p1, 1, ready(1)).await;
    let started = agent.until_desired("peers", |assigned| assigned.iter().all(|a| a.peers.len() == 2)).await;
    assert_eq!(started[0].peers, ["127.0.0.1:9000", "127.0.0.1:9001"]);
    assert_eq!(started[0].secret, assigned[0].secret);

    // Two steps, and a checkpoint once both shares are there. Reports are pipelined.
    agent.report(&p0, 2, block(1..=2, 1)).await;
    agent.report(&p0, 3, agent.share(2, 0)).await;
    agent.until_acknowledged(&p0, 3).await;
    assert_eq!(coordinator.ask(&["checkpoints", &run]), Value::Array(vec![]));
    agent.tell(&p1, 2, agent.share(2, 1)).await;
    let checkpoints = wait_for("the commit", || {
        let listed = coordinator.ask(&["checkpoints", &run]);
        listed.as_array().is_some_and(|listed| !listed.is_empty()).then_some(listed)
    });
    let checkpoint = checkpoints[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(checkpoints[0]["step"], 2);

    // A third step, in no checkpoint, is reported twice, which does no harm. Then a process dies.
    agent.tell(&p0, 4, block(3..=3, 1)).await;
    agent.tell(&p0, 4, block(3..=3, 9)).await;
    assert_eq!(losses(&coordinator, &run), [(1, loss(1, 1)), (2, loss(2, 1)), (3, loss(3, 1))]);
    let shown = coordinator.ask(&["show", &run]);
    assert_eq!((&shown["step"], &shown["samples_per_second"]), (&3.into(), &4_000.0.into()));
    agent.tell(&p1, 3, exited(137)).await;
    let assigned = agent.until_desired("generation 2", |assigned| assigned.iter().all(|a| a.generation == 2)).await;
    assert_eq!(assigned.len(), 2);
    assert_eq!(restored(&agent, &assigned[0]), (2, checkpoint.clone()));
    assert_ne!(assigned[0].secret, started[0].secret, "the old generation must not join");
    assert_eq!(losses(&coordinator, &run), [(1, loss(1, 1)), (2, loss(2, 1))], "step 3 was rolled back");

    // A late report of the old generation is acknowledged, so that the agent drops it, and changes nothing.
    agent.tell(&p0, 5, block(4..=4, 1)).await;
    assert_eq!(losses(&coordinator, &run).len(), 2);

    // The new generation trains; then the coordinator is killed and started again.
    let (p0, p1) = (process(&run, 2, 0), process(&run, 2, 1));
    agent.tell(&p0, 1, ready(0)).await;
    agent.tell(&p1, 1, ready(1)).await;
    agent.tell(&p0, 2, block(3..=3, 2)).await;
    coordinator.kill();
    drop(agent);
    let coordinator = Coordinator::start(&state_dir);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 2).await;
    let assigned = agent.until_desired("the same generation continues", |assigned| !assigned.is_empty()).await;
    assert!(assigned.iter().all(|a| a.generation == 2 && a.peers.len() == 2), "{assigned:?}");
    assert_eq!(losses(&coordinator, &run), [(1, loss(1, 1)), (2, loss(2, 1)), (3, loss(3, 2))]);

    // The agent does not know which reports were acknowledged: it repeats the last one, and sends the rest.
    agent.report(&p0, 2, block(3..=3, 2)).await;
    agent.report(&p0, 3, block(4..=4, 2)).await;
    agent.report(&p0, 4, agent.share(4, 0)).await;
    agent.report(&p1, 2, agent.share(4, 1)).await;
    agent.report(&p0, 5, finished(4, 2)).await;
    agent.report(&p1, 3, finished(4, 2)).await;
    agent.until_acknowledged(&p0, 5).await;
    agent.until_acknowledged(&p1, 3).await;
    // All processes have finished. The run finishes once its last checkpoint is committed.
    let shown = wait_for("the end", || {
        let shown = coordinator.ask(&["show", &run]);
        (shown["status"] != "running").then_some(shown)
    });
    assert_eq!((&shown["status"], &shown["restarts"]), (&"finished".into(), &1.into()));
    assert_eq!(shown["final_state_digest"], final_state(4, 2).to_hex());
    assert_eq!(losses(&coordinator, &run).iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2, 3, 4]);
    agent.report(&p0, 6, exited(0)).await;
    agent.report(&p1, 4, exited(0)).await;
    agent.until_desired("nothing more to run", <[_]>::is_empty).await;
    assert_eq!(coordinator.ask(&["ps"])[0]["run"], run.as_str());

    // A new run from the checkpoint begins with its manifest.
    let output = crate::support::run(&["resume", &checkpoint[..10], "--addr", &coordinator.address]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let resumed = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let assigned = agent.until_desired("the resumed run", |assigned| !assigned.is_empty()).await;
    assert_eq!((&assigned[0].run, assigned[0].generation), (&resumed, 1));
    assert_eq!(restored(&agent, &assigned[0]), (2, checkpoint.clone()));
    assert_eq!(coordinator.ask(&["show", &resumed])["parent"], checkpoint.as_str());
    let output = crate::support::run(&["cancel", &resumed, "--addr", &coordinator.address]);
    assert!(output.status.success());
    agent.until_desired("nothing after the cancel", <[_]>::is_empty).await;
    assert_eq!(coordinator.terminate(), 0);
}

#[tokio::test]
async fn desired_is_sent_only_when_it_changes_and_a_newer_stream_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let job = write_job(dir.path(), 1, 4);
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let mut other = Agent::attach(&coordinator.address, "node-b", "1", 1).await;
    let run = coordinator.submit(&job);
    agent.until_desired("the process", |assigned| assigned.len() == 1).await;
    let p0 = process(&run, 1, 0);
    agent.tell(&p0, 1, ready(0)).await;
    agent.until_desired("peers", |assigned| assigned[0].peers.len() == 1).await;
    let before = agent.num_desired;
    for sequence in 2..=20 {
        agent.tell(&p0, sequence, block(1..=1, sequence)).await;
    }
    assert_eq!(agent.num_desired, before, "reports change nothing that the node should run");
    // The other node got one message, that it has nothing to run.
    other.until("its first word", |other| other.desired.is_some()).await;

    let mut newer = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    newer.until_desired("the same process", |assigned| assigned.len() == 1).await;
    let status = loop {
        if let Err(status) = agent.listen().await {
            break status;
        }
    };
    assert_eq!(status.code(), tonic::Code::Aborted);
    // A new incarnation: the processes of the one before are gone.
    drop(newer);
    let mut reborn = Agent::attach(&coordinator.address, "node-a", "2", 1).await;
    reborn.until("a word", |agent| agent.desired.is_some()).await;
    let shown = coordinator.ask(&["show", &run]);
    assert_eq!((&shown["generation"], &shown["restarts"]), (&2.into(), &1.into()));
}

#[tokio::test]
async fn a_silent_node_is_given_up_after_its_lease_and_a_broken_stream_alone_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let job = write_job(dir.path(), 1, 4);
    let config = dir.path().join("coordinator.toml");
    std::fs::write(&config, "lease_ms = 1500\ntick_ms = 10\n").unwrap();
    let config = config.to_str().unwrap();
    let coordinator = Coordinator::start_with(&dir.path().join("state"), &["--config", config]);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    assert_eq!(agent.welcome.lease_ms, 1_500);
    let run = coordinator.submit(&job);
    agent.until_desired("the process", |assigned| assigned.len() == 1).await;
    drop(agent);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let assigned = agent.until_desired("the process is still there", |assigned| assigned.len() == 1).await;
    assert_eq!(assigned[0].generation, 1);

    // Heartbeats keep the node alive for longer than the lease.
    let begin = std::time::Instant::now();
    while begin.elapsed() < std::time::Duration::from_secs(2) {
        agent.beat().await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(coordinator.ask(&["nodes"])[0]["alive"], true);

    // A coordinator that was stopped reads the messages of that time when it continues.
    coordinator.signal(Signal::STOP);
    for _ in 0..25 {
        agent.beat().await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    coordinator.signal(Signal::CONT);
    for _ in 0..5 {
        agent.beat().await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(coordinator.ask(&["show", &run])["generation"], 1);

    // After silence another node gets the work, and the stream is closed, so that the agent joins again.
    let mut spare = Agent::attach(&coordinator.address, "node-b", "1", 1).await;
    let keep_spare = async {
        loop {
            spare.beat().await;
            if spare.desired.as_ref().is_some_and(|desired| !desired.is_empty()) {
                break;
            }
            let _ = tokio::time::timeout(std::time::Duration::from_millis(200), spare.listen()).await;
        }
    };
    tokio::time::timeout(crate::support::DEADLINE, keep_spare).await.expect("the spare node takes over");
    let assigned = spare.desired.clone().unwrap();
    assert_eq!((&assigned[0].run, assigned[0].generation), (&run, 2));
    let status = loop {
        if let Err(status) = agent.listen().await {
            break status;
        }
    };
    assert_eq!(status.code(), tonic::Code::Aborted);
    let nodes = coordinator.ask(&["nodes"]);
    assert_eq!((&nodes[0]["alive"], &nodes[1]["alive"]), (&false.into(), &true.into()));
}

#[tokio::test]
async fn logs_are_asked_from_the_agent_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let job = write_job(dir.path(), 2, 4);
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 2).await;
    let run = coordinator.submit(&job);
    agent.until_desired("two processes", |assigned| assigned.len() == 2).await;
    let logs = [b"first line\nsecond ".as_slice(), b"of process 1\n".as_slice()];
    let mut reader = coord(&["logs", &run, "--addr", &coordinator.address]);
    let reading = tokio::task::spawn_blocking(move || reader.output().unwrap());
    // Each answer gives up to six bytes, so that one process takes several.
    let mut answered = 0;
    while !reading.is_finished() {
        while answered < agent.log_requests.len() {
            let request = agent.log_requests[answered].clone();
            let text = logs[request.process as usize];
            let end = text.len().min(request.offset as usize + 6);
            let piece = text[request.offset as usize..end].to_vec();
            let reply = LogReply { id: request.id, text: piece, next_offset: end as u64, end: end == text.len() };
            agent.say(Say::Log(reply)).await;
            answered += 1;
        }
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), agent.listen()).await;
    }
    let output = reading.await.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "[0] first line\n[1] of process 1\n[0] second \n");
    assert!(answered >= 6, "{answered} answers");
    assert!(agent.log_requests.iter().all(|request| request.run == run && request.generation == 1));
}

#[tokio::test]
async fn what_an_agent_must_not_say_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let refused = async |first: Say| match Agent::open(&coordinator.address, first).await {
        Ok(_) => panic!("not refused"),
        Err(status) => status,
    };
    let status = refused(Say::Heartbeat(lockstep_rpc::Heartbeat {})).await;
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::InvalidArgument, "field `body`: the first message must be `hello`")
    );
    let status = refused(Say::Hello(hello("../x", "1", 1))).await;
    assert!(status.message().starts_with("field `node`: `../x` is not a node name"), "{status}");

    // A report that skips others ends the stream: the agent then repeats all that are not acknowledged.
    let job = write_job(dir.path(), 1, 4);
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let run = coordinator.submit(&job);
    agent.until_desired("the process", |assigned| assigned.len() == 1).await;
    agent.report(&process(&run, 1, 0), 5, ready(0)).await;
    let status = loop {
        if let Err(status) = agent.listen().await {
            break status;
        }
    };
    assert_eq!(status.message(), "report 5 of process 0 arrived too early: report 1 must come first");
    // A report of an unknown run is acknowledged and dropped: otherwise the agent would repeat it forever.
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    agent.tell(&process("0123456789", 1, 0), 1, ready(0)).await;
    agent.until_desired("still there", |assigned| assigned.len() == 1).await;
}

#[tokio::test]
async fn followed_reports_come_as_they_are_said_and_end_with_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, run, p0) = Agent::ready(&coordinator, dir.path(), 9).await;
    agent.tell(&p0, 2, block(1..=2, 1)).await;

    let mut client = ControlClient::connect(format!("http://{}", coordinator.address)).await.unwrap();
    let request = ReportsRequest { run: run.clone(), follow: true };
    let mut reports = client.reports(request).await.unwrap().into_inner();
    let mut next = async || {
        let block = tokio::time::timeout(crate::support::DEADLINE, reports.message()).await.expect("in time").unwrap();
        block.map(|block| block.decode().unwrap().steps.iter().map(|report| report.step).collect::<Vec<_>>())
    };
    assert_eq!(next().await, Some(vec![1, 2]));
    agent.tell(&p0, 3, block(3..=5, 1)).await;
    assert_eq!(next().await, Some(vec![3, 4, 5]));
    assert!(crate::support::run(&["cancel", &run, "--addr", &coordinator.address]).status.success());
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn what_was_followed_into_tools_ends_where_a_run_that_went_back_ends() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, run, p0) = Agent::ready(&coordinator, dir.path(), 9).await;
    agent.tell(&p0, 2, block(1..=5, 1)).await;

    let [followed, read, board] = ["followed.csv", "read.csv", "board"].map(|name| dir.path().join(name));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mirror = ["mirror", &run, "--addr", &coordinator.address, "--csv"].map(str::to_owned);
    let follow = [&mirror[..], &[path(&followed), "--follow".into(), "--tensorboard".into(), path(&board)]].concat();
    let mut following =
        lockstep_support::Process::start(&mut coord(&follow.iter().map(String::as_str).collect::<Vec<_>>()));
    // TensorBoard's file is written during the run.
    let written = || {
        let files = std::fs::read_dir(board.join(&run)).ok()?;
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        (bytes > 1000).then_some(bytes)
    };
    wait_for("five steps in TensorBoard's file", written);
    agent.tell(&p0, 3, exited(137)).await;
    agent.until_desired("the next generation", |assigned| assigned.iter().any(|one| one.generation == 2)).await;
    assert!(crate::support::run(&["cancel", &run, "--addr", &coordinator.address]).status.success());
    let outcome = following.end(crate::support::DEADLINE);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    let again = [&mirror[..], &[path(&read)]].concat();
    assert!(crate::support::run(&again.iter().map(String::as_str).collect::<Vec<_>>()).status.success());
    let [followed, read] = [followed, read].map(|path| std::fs::read_to_string(path).unwrap());
    assert_eq!(followed, read);
    assert_eq!(read.lines().count(), 1, "{read}");

    // A limit on the size of files fails the write. Its signal would leave unfinished files behind.
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_coord")]).args(&again);
    let output = limited.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(6) && said.contains("File too large"), "{:?}: {said}", output.status);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{left:?}");
}

#[tokio::test]
async fn what_fits_a_run_and_a_checkpoint_is_refused_with_both() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, first, process) = Agent::trained(&coordinator, dir.path()).await;
    let share = agent.share(2, 0);
    agent.tell(&process, 3, share).await;
    let made = wait_for("the checkpoint", || {
        coordinator.ask(&["show", &first])["checkpoints"][0]["id"].as_str().map(str::to_owned)
    });
    let name = &made[..8];
    let job = dir.path().join("job.toml");
    let output = crate::support::run(&[
        "submit",
        job.to_str().unwrap(),
        "--set",
        &format!("name=\"{name}\""),
        "--addr",
        &coordinator.address,
    ]);
    let second = String::from_utf8(output.stdout).unwrap();
    for typed in [&["verify", name][..], &["diff", name, &first]] {
        let said = fails(&[typed, &["--addr", &coordinator.address]].concat(), 4);
        let both = format!("`{name}` matches run `{}` ({name}) and checkpoint `{made}`", second.trim());
        assert!(said.contains(&both), "{typed:?}: {said}");
    }

    // Nor does a name that fits two runs stand for the checkpoint.
    let name = &made[..7];
    for seed in ["seed=101", "seed=102"] {
        let named = format!("name=\"{name}\"");
        crate::support::run(&[
            "submit",
            job.to_str().unwrap(),
            "--set",
            &named,
            "--set",
            seed,
            "--addr",
            &coordinator.address,
        ]);
    }
    for typed in [&["verify", name][..], &["diff", name, &first], &["lineage", name], &["reproduce", name]] {
        let said = fails(&[typed, &["--addr", &coordinator.address]].concat(), 4);
        assert!(said.contains(&format!("`{name}` matches 2 runs")), "{typed:?}: {said}");
    }
}

/// Step and id of the checkpoint from which `assignment` starts, after a check of its manifest in the store.
fn restored(agent: &Agent, assignment: &Assignment) -> (u64, String) {
    let restore = assignment.restore.clone().expect("a checkpoint to begin from");
    let blob: Piece = restore.manifest.expect("its manifest").try_into().expect("a digest");
    let bytes = BlobStore::existing(Path::new(&agent.welcome.store)).expect("a store").get(&blob).expect("a blob");
    assert_eq!(Manifest::id(&bytes).as_bytes().as_slice(), restore.checkpoint);
    (Manifest::decode(&bytes).expect("a sound manifest").step, Manifest::id(&bytes).to_hex())
}
