//! Free ports for servers that cannot listen on port 0.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

/// Number of ports to try.
const PORTS: u32 = 12_000;

/// A free port below the system's ephemeral ports. An ephemeral port could be given to another program before a slow server listens.
///
/// # Panics
/// If no port is free.
pub fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let given_out = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let first = u32::max(given_out, PORTS + 1024) - PORTS;
    let begin = process::id().wrapping_mul(31).wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
    let ports = (0..PORTS).filter_map(|at| u16::try_from(first + begin.wrapping_add(at) % PORTS).ok());
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.into_iter().find(is_free).expect("one of many ports is free")
}
