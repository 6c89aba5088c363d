use lockstep_rpc::{EncodedBlock, Finished};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

mod transitions;

/// A process with connection 1; only its spool is real.
fn process() -> (TempDir, Process, mpsc::Receiver<AgentCommand>) {
    let (dir, mut process, _signals) = started();
    let told = join(&mut process, 1);
    (dir, process, told)
}

/// A started process, and the signals that it gets: to stop, and to end by itself.
fn started() -> (TempDir, Process, [CancellationToken; 2]) {
    let (dir, key, spool) = spool();
    let (child, signals) = Child::without_process();
    (dir, Process::started(key, Assignment::default(), Ok(child), spool), signals)
}

fn spool() -> (TempDir, ProcessKey, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let key = ProcessKey::new("0123456789", 1, 0).unwrap();
    let spool = Spool::create(dir.path().join("s"), key.clone()).unwrap();
    (dir, key, spool)
}

/// Connects the process, and checks that it gets its assignment.
fn join(process: &mut Process, id: ConnectionId) -> mpsc::Receiver<AgentCommand> {
    let (commands, mut told) = mpsc::channel(4);
    process.join(id, commands);
    assert!(matches!(told.try_recv().unwrap().body, Some(Command::Assign(_))));
    told
}

/// Closes connection 1, and ends the process.
fn end(process: &mut Process) {
    process.hang_up(1);
    process.end(Exit { code: 0, output: String::new() });
}

fn say(process: &mut Process, id: ConnectionId, body: Body) -> oneshot::Receiver<()> {
    let (accepted, answer) = oneshot::channel();
    process.say(id, ProcessMessage { body: Some(body) }, accepted);
    answer
}

#[test]
fn a_full_disk_makes_the_process_wait_and_loses_nothing() {
    let (dir, mut process, _told) = process();
    // A missing directory stands for a full disk.
    let spool = dir.path().join("s");
    std::fs::remove_dir_all(&spool).unwrap();
    let mut answer = say(&mut process, 1, Body::Block(EncodedBlock::default()));
    process.retry();
    end(&mut process);
    assert!(process.is_held() && !process.is_gone() && process.next_report().is_none());
    assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty), "it is not read on");
    std::fs::create_dir(&spool).unwrap();
    process.retry();
    assert_eq!(answer.try_recv(), Ok(()));
    assert!(process.is_gone());
    let bodies: Vec<_> =
        std::iter::from_fn(|| process.next_report()).map(|report| report.message.unwrap().body.unwrap()).collect();
    assert!(matches!(bodies[..], [Body::Block(_), Body::Exited(_)]), "{bodies:?}");
}

#[test]
fn a_finished_process_may_go_when_all_is_acknowledged_or_it_is_dismissed() {
    let is_drained = |told: &mut mpsc::Receiver<AgentCommand>| told.try_recv().is_ok();
    let (_dir, mut process, mut told) = process();
    say(&mut process, 1, Body::Block(EncodedBlock::default()));
    say(&mut process, 1, Body::Finished(Finished::default()));
    process.acknowledge(1);
    assert!(!is_drained(&mut told));
    process.acknowledge(2);
    assert!(is_drained(&mut told));
    process.acknowledge(2);
    assert!(!is_drained(&mut told), "it is told once");

    let (_dir, mut process, mut told) = self::process();
    say(&mut process, 1, Body::Finished(Finished::default()));
    process.dismiss();
    assert!(is_drained(&mut told), "what it said is on disk");
    end(&mut process);
    assert!(!process.is_over(), "and still to be sent");
    process.acknowledge(2);
    assert!(process.is_over());
}

#[test]
fn a_started_process_is_told_what_became_of_the_last_checkpoint_whenever_that_changes() {
    let (_dir, mut process, mut told) = process();
    let rejected = Save { attempt: 1, ..Save::default() };
    process.want(rejected);
    assert!(told.try_recv().is_err(), "it is not started");
    process.want(Save::default());
    process.meet(&["a".to_owned()]);
    assert!(matches!(told.try_recv().unwrap().body, Some(Command::Start(_))));
    for save in [rejected, Save { committed: true, ..rejected }] {
        for _ in 0..2 {
            process.want(save);
        }
        assert_eq!(told.try_recv().unwrap().body, Some(Command::Save(save)));
        assert!(told.try_recv().is_err(), "it is told once");
    }
}

#[test]
fn what_only_the_agent_may_say_or_another_connection_says_is_not_taken() {
    let (_dir, mut process, _told) = process();
    for body in [Body::Exited(Exited::default()), Body::Hello(lockstep_rpc::ProcessHello::default())] {
        assert_eq!(say(&mut process, 1, body).try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
    let mut late = say(&mut process, 2, Body::Block(EncodedBlock::default()));
    assert_eq!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    assert!(!process.has_unsent());
}

#[test]
fn a_report_that_the_disk_lost_is_replaced_under_its_number() {
    let (dir, mut process, _told) = process();
    say(&mut process, 1, Body::Block(EncodedBlock::default()));
    std::fs::remove_file(dir.path().join("s/00000000000000000001.segment")).unwrap();
    let report = process.next_report().unwrap();
    assert_eq!(report.sequence, 1);
    assert!(matches!(report.message.unwrap().body, Some(Body::Failed(failed)) if failed.reason.contains("lost")));
}
