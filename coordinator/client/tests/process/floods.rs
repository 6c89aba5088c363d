//! Floods of connections, to a coordinator with a low limit on open files.

use std::io::Write;
use std::net::TcpStream;

use crate::support::Coordinator;

/// Limits the coordinator's open files to fewer than each flood here needs.
const FILES: &str = "ulimit -n 128; exec \"$0\" \"$@\"";
const CONNECTIONS: usize = 120;

#[test]
fn silent_connections_and_half_greetings_stop_neither_port() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start_under(&["sh", "-c", FILES], dir.path(), &[]);
    let page = coordinator.page();
    for words in ["", "GET / HTTP/1.1\r\nHo", "PRI * HTTP/2.0\r\n"] {
        let mut held = Vec::new();
        for address in [&coordinator.address, &page] {
            for _ in 0..CONNECTIONS {
                let Ok(mut stream) = TcpStream::connect(address) else { continue };
                // A connection that was closed at once does not count.
                if stream.write_all(words.as_bytes()).is_ok() {
                    held.push(stream);
                }
            }
        }
        assert_eq!(coordinator.ask(&["nodes"]), serde_json::json!([]), "after {words:?}");
        assert_eq!(coordinator.get("/api/runs").0, 200, "after {words:?}");
    }
    let log = coordinator.log();
    let complaints = log.lines().filter(|line| line.contains("connections are closed")).count();
    assert!((1..=8).contains(&complaints), "not a line for each connection, and not none:\n{log}");
}

#[test]
fn a_coordinator_takes_as_many_open_files_as_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start_under(&["prlimit", "--nofile=200:900"], dir.path(), &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", coordinator.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["900", "900"], "{files}");
}
