//! Each transition between the states of a process, and what must not happen in it.

use super::*;

const PROGRAM: Digest = Digest::from_bytes([7; 32]);

fn exit(code: i32) -> Exit {
    Exit { code, output: "its last lines".to_owned() }
}

/// All reports that were not asked for before.
fn reported(process: &mut Process) -> Vec<Body> {
    std::iter::from_fn(|| process.next_report()).map(|report| report.message.unwrap().body.unwrap()).collect()
}

/// The only report, which must be the end of the process.
fn its_end(process: &mut Process) -> Exited {
    let bodies = reported(process);
    let [Body::Exited(exited)] = &bodies[..] else { panic!("{bodies:?}") };
    assert!(process.is_gone());
    exited.clone()
}

fn is_asked(signals: &[CancellationToken; 2]) -> [bool; 2] {
    signals.each_ref().map(CancellationToken::is_cancelled)
}

fn meet(process: &mut Process) {
    process.meet(&["a".to_owned()]);
}

fn waiting() -> (TempDir, Process) {
    let (dir, key, spool) = spool();
    (dir, Process::waiting(key, Assignment::default(), spool, PROGRAM, None))
}

#[test]
fn one_that_waits_for_its_program_is_started_or_fails_or_is_stopped() {
    let (_dir, mut process) = waiting();
    assert!(process.waits_for() == Some(&PROGRAM) && process.is_alive() && !process.is_gone());
    meet(&mut process);
    process.begin(Ok(Child::without_process().0));
    assert!(process.waits_for().is_none() && process.is_alive());
    let mut told = join(&mut process, 1);
    assert!(matches!(told.try_recv().unwrap().body, Some(Command::Start(_))), "it has the newest assignment");

    let (_dir, mut process) = waiting();
    process.begin(Err(NotStarted { reason: "no compiler".to_owned(), transient: true }));
    let bodies = reported(&mut process);
    assert!(matches!(&bodies[..], [Body::Failed(failed)] if failed.reason == "no compiler" && failed.transient));
    assert!(process.is_gone() && !process.is_over());
    process.begin(Ok(Child::without_process().0));
    assert!(process.is_gone(), "it is not started later");

    let (_dir, mut process) = waiting();
    process.dismiss();
    let exited = its_end(&mut process);
    assert_eq!((exited.code, exited.cause()), (TERMINATED, ExitCause::Dismissed));
    let (_dir, mut process) = waiting();
    process.stop(ExitCause::NodeLeaving);
    assert_eq!(its_end(&mut process).cause(), ExitCause::NodeLeaving);
}

#[test]
fn one_that_ends_before_it_connects_is_gone_when_it_cannot_have_connected() {
    let (_dir, mut process, signals) = started();
    process.linger_expired();
    assert!(process.is_alive(), "it lives");
    process.end(exit(7));
    assert!(!process.is_alive() && !process.is_gone() && !process.has_unsent());
    process.linger_expired();
    let exited = its_end(&mut process);
    assert_eq!((exited.code, exited.output.as_str(), exited.cause()), (7, "its last lines", ExitCause::Unnamed));
    assert_eq!(is_asked(&signals), [false; 2]);
}

#[test]
fn what_an_ended_process_said_is_taken_before_its_end() {
    let connected_late = |process: &mut Process| {
        process.end(exit(1));
        let (commands, _told) = mpsc::channel(4);
        process.join(1, commands);
    };
    let joined = |process: &mut Process| {
        drop(join(process, 1));
        process.end(exit(1));
    };
    let training = |process: &mut Process| {
        let _told = join(process, 1);
        meet(process);
        process.end(exit(1));
    };
    let finished = |process: &mut Process| {
        let _told = join(process, 1);
        say(process, 1, Body::Finished(Finished::default()));
        process.end(exit(1));
    };
    for connect in [&connected_late as &dyn Fn(&mut Process), &joined, &training, &finished] {
        let (_dir, mut process, _signals) = started();
        connect(&mut process);
        process.linger_expired();
        say(&mut process, 1, Body::Failed(Failed::default()));
        process.hang_up(2);
        assert!(!process.is_gone(), "its connection is open");
        process.hang_up(1);
        let bodies = reported(&mut process);
        assert!(process.is_gone() && matches!(bodies[..], [.., Body::Failed(_), Body::Exited(_)]), "{bodies:?}");
        process.linger_expired();
        process.end(exit(2));
        process.hang_up(1);
        assert!(reported(&mut process).is_empty(), "it ended once");
    }
}

#[test]
fn one_that_hangs_up_is_to_end_and_is_not_connected_again() {
    let (_dir, mut process, signals) = started();
    join(&mut process, 1);
    process.hang_up(1);
    assert_eq!(is_asked(&signals), [false, true], "by itself");
    let (commands, mut told) = mpsc::channel(4);
    process.join(2, commands);
    assert_eq!(told.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    process.dismiss();
    assert_eq!(is_asked(&signals), [true, true]);
    process.end(exit(1));
    assert_eq!(its_end(&mut process).cause(), ExitCause::Dismissed);
}

#[test]
fn one_that_is_dismissed_is_stopped_unless_it_has_finished() {
    for training in [false, true] {
        let (_dir, mut process, signals) = started();
        let _told = training.then(|| join(&mut process, 1));
        process.dismiss();
        assert_eq!(is_asked(&signals), [true, false]);
        assert!(process.is_alive() && !process.is_desired());
        process.want(Save::default());
        assert!(process.is_desired());
        process.hang_up(1);
        process.end(exit(143));
        process.linger_expired();
        assert_eq!(its_end(&mut process).cause(), ExitCause::Dismissed);
    }
    for hangs_up in [false, true] {
        let (_dir, mut process, signals) = started();
        let _told = join(&mut process, 1);
        meet(&mut process);
        say(&mut process, 1, Body::Finished(Finished::default()));
        assert_eq!(is_asked(&signals), [false; 2], "its report is not acknowledged");
        if hangs_up {
            process.hang_up(1);
        }
        process.dismiss();
        assert_eq!(is_asked(&signals), [false, true], "it ends by itself");
    }
}

#[test]
fn one_that_finished_is_stopped_with_its_node() {
    let (_dir, mut process, signals) = started();
    let _told = join(&mut process, 1);
    say(&mut process, 1, Body::Finished(Finished::default()));
    process.acknowledge(1);
    process.stop(ExitCause::NodeLeaving);
    assert_eq!(is_asked(&signals), [true, true]);
    process.end(exit(0));
    assert!(!process.is_gone());
    process.hang_up(1);
    assert!(matches!(&reported(&mut process)[..], [Body::Exited(exited)] if exited.cause() == ExitCause::NodeLeaving));
}

#[test]
fn one_that_finished_while_the_disk_was_full_goes_when_its_report_is_kept() {
    let (dir, mut process, signals) = started();
    let mut told = join(&mut process, 1);
    let spool = dir.path().join("s");
    std::fs::remove_dir_all(&spool).unwrap();
    say(&mut process, 1, Body::Finished(Finished::default()));
    process.dismiss();
    assert!(told.try_recv().is_err() && is_asked(&signals) == [false; 2]);
    std::fs::create_dir(&spool).unwrap();
    process.retry();
    assert!(matches!(told.try_recv().unwrap().body, Some(Command::Drained(_))));
}

#[test]
fn one_that_has_its_assignment_ends_when_the_store_is_another() {
    let (_dir, mut process, signals) = started();
    process.store_is("/old");
    assert_eq!(is_asked(&signals), [false; 2], "it has not been told where");
    let _told = join(&mut process, 1);
    process.store_is("/old");
    assert_eq!(is_asked(&signals), [false; 2]);
    process.store_is("/new");
    assert_eq!(is_asked(&signals), [true, false]);
}

#[test]
fn one_that_makes_no_progress_is_named_once_and_where_it_hangs() {
    let (_dir, mut process, _signals) = started();
    let _told = join(&mut process, 1);
    let alive = lockstep_rpc::Alive { phase: "training".to_owned(), step: 3, ..lockstep_rpc::Alive::default() };
    say(&mut process, 1, Body::Alive(alive));
    process.end_if_hung(Duration::from_hours(1));
    process.end_if_hung(Duration::ZERO);
    process.restart_limit();
    end(&mut process);
    let exited = its_end(&mut process);
    let words = "it made no progress for 0 s (`progress_limit_s`) while training, after step 3";
    assert!(exited.hung.starts_with(words), "{}", exited.hung);
}
