//! How much of a port one client, or all of them, may have.

use std::time::Duration;

/// Open files that are kept for what is no connection: the databases, blobs that come and go, a worker's probe, hooks.
const OTHER_FILES: usize = 512;

/// What the connections of one port may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Of those, from one address of another machine. Addresses of this machine are all the same, so that they have no such limit.
    pub per_address: usize,
    /// Of those, that have said nothing yet: a newer one takes the place of the oldest.
    pub silent: usize,
    /// Time for a connection's first words, and on the page's port for the head of each request.
    pub greeting: Duration,
    /// Time in which at least one byte must come, or go where one waits.
    pub still: Duration,
}

/// The limits of both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of clients and workers.
    pub grpc: Limits,
    /// Of browsers.
    pub page: Limits,
}

impl Limits {
    /// For `connections` at a time, with the times of the default.
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

/// `ports` with as many connections as `files` open files allow. The page gets a quarter at most.
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
