//! Conformance between real processes: `kill -9` and `SIGSTOP`.
//!
//! The children run this test binary, with the test [`child`] as their program.

use std::{
    env,
    io::{self, Write},
    net::SocketAddr,
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::support::{AT_ONCE, PATIENCE, config, listen, round};
use lockstep_exchange::{Mesh, MeshError};
use lockstep_support::{Process, Signal, only_test};

const PROCESS: &str = "LOCKSTEP_EXCHANGE_CHILD";
const MARK: &str = "child says ";

/// The program of a child: prints its address, reads all addresses and the size of its rounds, and exchanges rounds until an
/// error, which it prints. Does nothing when it runs as an ordinary test.
#[test]
fn child() {
    let Ok(process) = env::var(PROCESS) else { return };
    let process: usize = process.parse().unwrap();
    let say = |what: &dyn std::fmt::Display| {
        let mut out = io::stdout().lock();
        // Fails if the parent reads no more, which is fine.
        let _ = writeln!(out, "\n{MARK}{what}");
        let _ = out.flush();
    };
    let listener = listen();
    say(&listener.local_addr());
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    let mut words = line.split_whitespace();
    let bytes: usize = words.next().unwrap().parse().unwrap();
    let limit_ms: u64 = words.next().unwrap().parse().unwrap();
    let addresses: Vec<SocketAddr> = words.map(|word| word.parse().unwrap()).collect();
    let mut config = config(process, &addresses);
    config.silence_limit = Duration::from_millis(limit_ms);
    let error = match Mesh::join(listener, &config) {
        Err(error) => error,
        Ok(mut mesh) => {
            say(&"joined");
            let error = (0..).find_map(|number| {
                let result = round(&mut mesh, number % 100, |_, _| bytes);
                if number == 10 {
                    say(&"running");
                }
                result.err()
            });
            error.unwrap()
        }
    };
    say(&match error {
        MeshError::PeerGone { process } => format!("gone {process}"),
        MeshError::Silence { process, .. } => format!("silence {process}"),
        other => format!("other {other:?}"),
    });
}

/// Children, killed when this goes out of scope.
struct Fleet {
    children: Vec<Process>,
    said: mpsc::Receiver<(usize, String, Instant)>,
    addresses: Vec<SocketAddr>,
}

impl Fleet {
    fn start(processes: usize) -> Self {
        let (sender, said) = mpsc::channel();
        let mut children = Vec::new();
        for process in 0..processes {
            let mut command = only_test("processes::child");
            command.arg("--test-threads=1").env(PROCESS, process.to_string());
            let sender = sender.clone();
            children.push(Process::start_told(&mut command, move |line| {
                if let Some(what) = line.strip_prefix(MARK) {
                    let _ = sender.send((process, what.to_owned(), Instant::now()));
                }
            }));
        }
        let mut fleet = Self { children, said, addresses: Vec::new() };
        let mut addresses: Vec<Option<SocketAddr>> = vec![None; processes];
        for _ in 0..processes {
            let (process, address, _) = fleet.hear();
            addresses[process] = Some(address.parse().unwrap());
        }
        fleet.addresses = addresses.into_iter().map(Option::unwrap).collect();
        fleet
    }

    fn hear(&self) -> (usize, String, Instant) {
        self.said.recv_timeout(PATIENCE).expect("a child hangs or died")
    }

    /// Tells `process` to join, with rounds of so many bytes.
    fn go(&mut self, process: usize, bytes: usize, limit: Duration) {
        let list: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        self.children[process].tell(&format!("{bytes} {} {}", limit.as_millis(), list.join(" ")));
    }

    fn all_running(processes: usize, bytes: usize, limit: Duration) -> Self {
        let mut fleet = Self::start(processes);
        for process in 0..processes {
            fleet.go(process, bytes, limit);
        }
        let mut running = 0;
        while running < processes {
            running += usize::from(fleet.hear().1 == "running");
        }
        fleet
    }

    fn signal(&self, process: usize, signal: Signal) {
        self.children[process].signal(signal);
    }

    /// The errors of all processes but `victim`, and the time of the last one.
    fn errors_of_the_others(&self, victim: usize) -> (Vec<String>, Instant) {
        let mut errors = Vec::new();
        let mut last = Instant::now();
        while errors.len() < self.children.len() - 1 {
            let (process, what, at) = self.hear();
            if what != "joined" && what != "running" {
                assert_ne!(process, victim, "the victim said {what}");
                errors.push(what);
                last = at;
            }
        }
        (errors, last)
    }
}

#[test]
fn kill_9_in_the_middle_of_rounds_is_an_error_on_everybody_at_once() {
    for (processes, bytes) in [(2, 4), (4, 4), (8, 4), (4, 1_000_000)] {
        let fleet = Fleet::all_running(processes, bytes, PATIENCE);
        let victim = processes / 2;
        let killed = Instant::now();
        fleet.signal(victim, Signal::KILL);
        let (errors, last) = fleet.errors_of_the_others(victim);
        let after = last - killed;
        println!("{processes} processes, {bytes} B: everybody knew {after:.1?} after the kill");
        assert!(after < AT_ONCE, "{processes} processes, {bytes} bytes: {after:?}");
        // A peer in the middle of a large frame cannot send a farewell, and may be reported instead of the victim.
        let named = errors.iter().filter(|what| **what == format!("gone {victim}")).count();
        assert!(if bytes == 4 { named == errors.len() } else { named > 0 }, "{errors:?}");
        assert!(errors.iter().all(|what| what.starts_with("gone ")), "{errors:?}");
    }
}

#[test]
fn kill_9_during_the_set_up_is_an_error_on_everybody_at_once() {
    let mut fleet = Fleet::start(4);
    let victim = 2;
    for process in [0, 1, 3] {
        fleet.go(process, 4, PATIENCE);
    }
    // Process 3 waits for its answer, 0 and 1 for its dial: none of them can finish.
    let killed = Instant::now();
    fleet.signal(victim, Signal::KILL);
    let (errors, last) = fleet.errors_of_the_others(victim);
    assert!(last - killed < AT_ONCE, "{:?}: {errors:?}", last - killed);
}

#[test]
fn a_stopped_process_is_silent_and_is_named() {
    let limit = Duration::from_millis(400);
    let fleet = Fleet::all_running(4, 1000, limit);
    let victim = 1;
    let stopped = Instant::now();
    fleet.signal(victim, Signal::STOP);
    let (errors, last) = fleet.errors_of_the_others(victim);
    let after = last - stopped;
    assert!(after > limit / 2 && after < limit + AT_ONCE, "{after:?}");
    assert!(errors.iter().all(|what| *what == format!("silence {victim}")), "{errors:?}");
    // When it continues, it finds broken connections, or that its peers were silent for as long as it was stopped.
    fleet.signal(victim, Signal::CONT);
    let (process, what, _) = fleet.hear();
    assert_eq!(process, victim);
    assert!(what.starts_with("gone ") || what.starts_with("silence "), "{what}");
}

#[test]
fn a_short_stop_disturbs_nobody() {
    let limit = Duration::from_secs(20);
    let fleet = Fleet::all_running(3, 100_000, limit);
    for victim in 0..3 {
        fleet.signal(victim, Signal::STOP);
        let heard = fleet.said.recv_timeout(Duration::from_millis(100));
        assert!(heard.is_err(), "somebody gave up: {heard:?}");
        fleet.signal(victim, Signal::CONT);
    }
    let heard = fleet.said.recv_timeout(Duration::from_millis(200));
    assert!(heard.is_err(), "somebody gave up: {heard:?}");
}
