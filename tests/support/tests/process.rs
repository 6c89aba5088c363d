//! Tests of the helpers that other tests rely on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use lockstep_support::{Process, Signal, wait_within};

const LIMIT: Duration = Duration::from_secs(30);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn number(line: &str) -> Option<u32> {
    line.parse().ok()
}

fn is_gone(pid: u32) -> Option<()> {
    (!Path::new("/proc").join(pid.to_string()).join("exe").exists()).then_some(())
}

#[test]
fn a_process_ends_with_its_owner_and_a_group_as_a_whole() {
    let single = Process::start(shell("exec sleep 1000").env("A", "b"));
    let group = Process::start_group(&mut shell("sleep 1000 & echo $!; wait"));
    let pids = [single.pid(), group.pid(), group.line("the other's id", LIMIT, number)];
    assert!(pids.iter().all(|pid| is_gone(*pid).is_none()));
    drop((single, group));
    for pid in pids {
        wait_within(LIMIT, "the end of each", || is_gone(pid));
    }
}

#[test]
fn a_line_that_does_not_come_is_told_with_all_that_was_written() {
    for (script, limit) in [("echo one; echo two >&2", LIMIT), ("echo one; echo two >&2; sleep 1000", LIMIT / 60)] {
        let process = Process::start(&mut shell(script));
        let two = process.line("two", LIMIT, |line| (line == "two").then_some(2));
        let looked =
            catch_unwind(AssertUnwindSafe(|| process.line("third", limit, |line| (line == "three").then_some(()))));
        let words = *looked.unwrap_err().downcast::<String>().unwrap();
        assert!(two == 2 && words.starts_with("no third within ") && words.contains("one\n"), "{words}");
        assert!(words.contains("two\n"), "{words}");
    }
}

#[test]
fn what_came_of_a_process_is_all_that_it_wrote_and_how_it_ended() {
    let outcome = Process::start(&mut shell("cat; seq 20000; printf cut >&2; exit 7")).end(LIMIT);
    assert_eq!((outcome.code, outcome.printed.lines().count(), &*outcome.said), (7, 20_000, "cut"));

    let (sender, heard) = channel();
    let mut told = Process::start_told(&mut shell("while read line; do echo \"<$line>\"; done"), move |line| {
        sender.send(line.to_owned()).unwrap();
    });
    for word in ["a", "b"] {
        told.tell(word);
        assert_eq!(heard.recv_timeout(LIMIT).unwrap(), format!("<{word}>"));
    }
    assert_eq!(told.exit_code(), None);
    told.signal(Signal::INT);
    assert_eq!(told.end(LIMIT).code, -2);
    assert_eq!(Process::start(&mut shell("exec sleep 1000")).stop(LIMIT), -15);
}
