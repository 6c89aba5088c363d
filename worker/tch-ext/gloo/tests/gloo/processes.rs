//! A Gloo group whose members are processes. One of them is killed or stopped, and all others notice it at once, although Gloo itself
//! tells only the neighbours. Then they form a smaller group and continue.
//!
//! The test starts itself as each member, with a rank in the environment.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_gloo::gloo;
use lockstep_support::{Process, Signal, only_test};
use lockstep_tch_ext::c10d::{Error, ProcessGroup, Store};
use tch::{Device, Kind, Tensor};

const PATIENCE: Duration = Duration::from_mins(1);
const SIZE: usize = 5;
const VICTIM: usize = 2;
const MARK: &str = "member says: ";
const STORES: &str = "LOCKSTEP_TEST_STORES";
const RANK: &str = "LOCKSTEP_TEST_RANK";
const DEADLINE_MS: &str = "LOCKSTEP_TEST_DEADLINE_MS";
const LENGTH: &str = "LOCKSTEP_TEST_LENGTH";

/// Number of elements that fit into a few packets.
const SHORT: i64 = 16 * 1024;

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Runs a member: steps until an operation fails, then a new group of the remaining members.
fn member(rank: usize) {
    let stores = std::env::var(STORES).unwrap();
    let (first, second) = stores.split_once(' ').unwrap();
    let deadline = Duration::from_millis(std::env::var(DEADLINE_MS).unwrap().parse().unwrap());
    let join = |store: &str, rank, size| {
        let store = Store::connect(store.parse().unwrap(), PATIENCE).unwrap();
        ProcessGroup::new(&gloo(), &store, rank, size, PATIENCE).unwrap()
    };
    let group = join(first, rank, SIZE);
    let length = std::env::var(LENGTH).unwrap().parse().unwrap();
    let tensor = Tensor::ones([length], (Kind::Float, Device::Cpu));
    // One message from the victim to each member.
    let (mut from, to) = ([0; SIZE], if rank == VICTIM { [length; SIZE] } else { [0; SIZE] });
    from[VICTIM] = length;
    let sent = Tensor::ones([to.iter().sum()], (Kind::Float, Device::Cpu));
    for step in 0.. {
        let done = if length == SHORT {
            group.all_reduce(&tensor, deadline)
        } else {
            group.all_to_all(&tensor, &from, &sent, &to, deadline)
        };
        if let Err(error) = done {
            let kind = match error {
                Error::Timeout(_) => "timeout",
                Error::PeerGone(_) => "peer-gone",
                other => panic!("{other}"),
            };
            println!("{MARK}{kind} {}", now_ms());
            break;
        }
        if step == 20 {
            println!("{MARK}running {}", now_ms());
        }
    }
    drop(group);
    let group = join(second, rank - usize::from(rank > VICTIM), SIZE - 1);
    let tensor = Tensor::from(1.0_f32);
    group.all_reduce(&tensor, PATIENCE).unwrap();
    println!("{MARK}regrouped-{} {}", tensor.double_value(&[]), now_ms());
    // No member ends before all have reported.
    group.all_reduce(&tensor, PATIENCE).unwrap();
}

struct Member {
    process: Process,
    said: Receiver<String>,
}

impl Member {
    fn start(test: &str, rank: usize, stores: &str, deadline: Duration, length: i64) -> Self {
        let mut command = only_test(test);
        command
            .env(STORES, stores)
            .env(RANK, rank.to_string())
            .env(DEADLINE_MS, deadline.as_millis().to_string())
            .env(LENGTH, length.to_string())
            .env("OMP_NUM_THREADS", "1");
        let (sender, said) = channel();
        let process = Process::start_told(&mut command, move |line| {
            // The test harness may write to the same line.
            if let Some((_, said)) = line.split_once(MARK) {
                // An error is ignored: the receiver may have been dropped.
                let _ = sender.send(said.to_owned());
            }
        });
        Self { process, said }
    }

    /// The next word of the member, and the time at which it was written.
    fn next(&mut self) -> (String, u128) {
        let said = self.said.recv();
        let said = said.unwrap_or_else(|_| panic!("the member ended and said nothing:\n{}", self.process.output()));
        let (word, time) = said.split_once(' ').unwrap();
        (word.to_owned(), time.parse().unwrap())
    }
}

/// Sends `signal` to one member. Returns for each other member the error that it reported, and how many milliseconds later.
fn strike(test: &str, signal: Signal, deadline: Duration, length: i64) -> Vec<(String, u128)> {
    // One store for each group.
    let serve = || Store::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), PATIENCE).unwrap();
    let servers = [serve(), serve()];
    let stores = servers.each_ref().map(|server| server.address().to_string()).join(" ");
    let mut members: Vec<_> = (0..SIZE).map(|rank| Member::start(test, rank, &stores, deadline, length)).collect();
    for member in &mut members {
        assert_eq!(member.next().0, "running");
    }
    let victim = members.remove(VICTIM);
    let struck = now_ms();
    victim.process.signal(signal);
    let noticed = members
        .iter_mut()
        .map(|member| {
            let (word, time) = member.next();
            (word, time.saturating_sub(struck))
        })
        .collect();
    for member in &mut members {
        assert_eq!(member.next().0, format!("regrouped-{}", SIZE - 1));
    }
    for member in &mut members {
        assert_eq!(member.process.end(PATIENCE).code, 0);
    }
    noticed
}

#[test]
fn a_killed_member_is_known_to_all_at_once() {
    if let Ok(rank) = std::env::var(RANK) {
        return member(rank.parse().unwrap());
    }
    let noticed = strike("processes::a_killed_member_is_known_to_all_at_once", Signal::KILL, PATIENCE, SHORT);
    println!("after a kill: {noticed:?}");
    for (word, late) in noticed {
        assert_eq!(word, "peer-gone");
        assert!(late < 2000, "known only {late} ms later");
    }
}

/// Gloo itself does not report it to the members that wait for the rest of the message.
#[test]
fn a_member_killed_in_the_middle_of_a_message_is_known_to_all_at_once() {
    if let Ok(rank) = std::env::var(RANK) {
        return member(rank.parse().unwrap());
    }
    let test = "processes::a_member_killed_in_the_middle_of_a_message_is_known_to_all_at_once";
    let noticed = strike(test, Signal::KILL, PATIENCE, 4 << 20);
    println!("after a kill: {noticed:?}");
    for (word, late) in noticed {
        assert_eq!(word, "peer-gone");
        assert!(late < 5000, "known only {late} ms later");
    }
}

#[test]
fn a_stopped_member_is_known_to_all_at_the_deadline() {
    if let Ok(rank) = std::env::var(RANK) {
        return member(rank.parse().unwrap());
    }
    let deadline = Duration::from_millis(800);
    let noticed = strike("processes::a_stopped_member_is_known_to_all_at_the_deadline", Signal::STOP, deadline, SHORT);
    println!("after a stop: {noticed:?}");
    assert!(noticed.iter().any(|(word, _)| word == "timeout"), "{noticed:?}");
    for (_, late) in noticed {
        assert!((700..5000).contains(&late), "known {late} ms later");
    }
}
