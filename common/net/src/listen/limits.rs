//! Limits on the connections of a port, for one client and for all clients.

use std::time::Duration;

/// Open files that are reserved for other uses: databases, blob transfers, a worker's probe, hooks.
const OTHER_FILES: usize = 512;

/// Limits on the connections of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most open connections.
    pub connections: usize,
    /// The most open connections from one address of another machine. There is no such limit for connections of this machine.
    pub per_address: usize,
    /// The most silent connections, which have sent no request yet. A new one evicts the oldest.
    pub silent: usize,
    /// Time in which a client must send its first bytes; on the port of the web page, also the head of each request.
    pub greeting: Duration,
    /// Time after which a connection without data in either direction is closed.
    pub still: Duration,
}

/// The limits of both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For clients and workers.
    pub grpc: Limits,
    /// For browsers.
    pub page: Limits,
}

impl Limits {
    /// Limits for `connections` open connections, with default times: half of them per address, a quarter silent.
    pub const fn of(connections: usize) -> Self {
        Self {
            connections,
            per_address: connections.div_ceil(2),
            silent: connections.div_ceil(4),
            greeting: Duration::from_secs(10),
            still: Duration::from_mins(2),
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { grpc: Limits::of(4096), page: Limits::of(512) }
    }
}

/// Lowers the limits of `ports` so that all connections fit into `files` open files. The web page gets a quarter at most.
pub fn fit(ports: Ports, files: usize) -> Ports {
    let room = files.saturating_sub(OTHER_FILES).max(files / 2);
    let within = |limits: Limits, most: usize| {
        if limits.connections <= most {
            return limits;
        }
        let fitting = Limits::of(most.max(1));
        Limits {
            connections: fitting.connections,
            per_address: limits.per_address.min(fitting.per_address),
            silent: limits.silent.min(fitting.silent),
            ..limits
        }
    };
    let page = within(ports.page, room / 4);
    Ports { grpc: within(ports.grpc, room.saturating_sub(page.connections)), page }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files_and_the_page_leaves_room_for_workers() {
        let ports = Ports::default();
        assert_eq!(fit(ports, 20_000), ports);
        for files in [64, 256, 1024, 4096] {
            let Ports { grpc, page } = fit(ports, files);
            let all = grpc.connections + page.connections;
            assert!(all + OTHER_FILES.min(files / 2) <= files, "{files}: {all}");
            assert!(page.connections <= grpc.connections, "{files}");
            assert!(grpc.silent < grpc.connections && grpc.per_address < grpc.connections, "{files}");
        }
    }
}
