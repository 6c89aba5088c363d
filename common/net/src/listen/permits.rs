//! Permits: the right of a connection to be open at a port, and the eviction of silent connections.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::limits::Limits;

/// Shortest time between two log lines about rejected or evicted connections.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The permits of one port. Clones share one table.
#[derive(Clone, Debug)]
pub(super) struct Permits {
    limits: Limits,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug)]
struct Table {
    port: &'static str,
    last: u64,
    /// Every open connection with its address block.
    open: BTreeMap<u64, IpAddr>,
    by_address: BTreeMap<IpAddr, usize>,
    /// Silent connections, oldest first, each with the token that tells it to close.
    silent: BTreeMap<u64, CancellationToken>,
    complaints: Complaints,
}

/// A connection's permit. Dropping it frees the permit.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Permits,
    number: u64,
    /// Cancelled when the connection must close for a new one.
    pub(super) evicted: CancellationToken,
}

impl Permits {
    pub(super) fn new(port: &'static str, limits: Limits) -> Self {
        let table = Table {
            port,
            last: 0,
            open: BTreeMap::new(),
            by_address: BTreeMap::new(),
            silent: BTreeMap::new(),
            complaints: Complaints::default(),
        };
        Self { limits, table: Arc::new(Mutex::new(table)) }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A permit for a connection from `address`; `None` if a limit is reached and no silent connection can be evicted.
    pub(super) fn take(&self, address: IpAddr) -> Option<Permit> {
        let (limits, block) = (&self.limits, block_of(address));
        let mut table = self.table();
        if !block.is_loopback() && table.by_address.get(&block).is_some_and(|count| *count >= limits.per_address) {
            if !table.evict(Some(block)) {
                table.complain(address, "this address has reached its limit of connections");
                return None;
            }
            table.complain(address, "this address has reached its limit: its oldest silent connection was evicted");
        }
        if table.open.len() >= limits.connections {
            if !table.evict(None) {
                table.complain(address, "the port has reached its limit of connections");
                return None;
            }
            table.complain(address, "the port has reached its limit: the oldest silent connection was evicted");
        } else if table.silent.len() >= limits.silent {
            table.evict(None);
            table.complain(address, "too many connections are silent: the oldest was evicted");
        }
        table.last += 1;
        let (number, evicted) = (table.last, CancellationToken::new());
        table.open.insert(number, block);
        *table.by_address.entry(block).or_default() += 1;
        table.silent.insert(number, evicted.clone());
        Some(Permit { permits: self.clone(), number, evicted })
    }

    /// Logs that accepting a connection failed, at most once in [`SAY_EVERY`].
    pub(super) fn failed(&self, error: &std::io::Error) {
        let mut table = self.table();
        if let Some(count) = table.complaints.due() {
            warn!(port = table.port, count, %error, "cannot accept connections; retrying");
        }
    }

    /// Number of connections that have a permit.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table().open.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The client has begun to use the connection: it is not silent any more, and cannot be evicted.
    pub(super) fn spoke(&self) {
        self.permits.table().silent.remove(&self.number);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.permits.table();
        table.silent.remove(&self.number);
        table.free(self.number);
    }
}

impl Table {
    /// Evicts the oldest silent connection, of `block` if given. False if there is none.
    fn evict(&mut self, block: Option<IpAddr>) -> bool {
        let is_of = |number: &&u64| block.is_none_or(|block| self.open.get(*number) == Some(&block));
        let Some(number) = self.silent.keys().find(is_of).copied() else { return false };
        if let Some(evicted) = self.silent.remove(&number) {
            evicted.cancel();
        }
        self.free(number);
        true
    }

    fn free(&mut self, number: u64) {
        let Some(block) = self.open.remove(&number) else { return };
        one_less(&mut self.by_address, &block);
    }

    fn complain(&mut self, address: IpAddr, why: &str) {
        if let Some(count) = self.complaints.due() {
            let open = self.open.len();
            warn!(port = self.port, count, open, %address, "connections are closed: {why}");
        }
    }
}

/// Counts events and limits how often they are logged.
#[derive(Debug, Default)]
struct Complaints {
    count: u64,
    said: Option<Instant>,
}

impl Complaints {
    /// Counts one event. Returns the number of events since the last log line if the next line is due.
    fn due(&mut self) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

/// Decrements the count of `key` and removes the entry when it reaches 0.
pub fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The block of addresses that one client can use at will: an IPv4 address, or the upper half of an IPv6 address.
pub fn block_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(connections: usize, per_address: usize, silent: usize) -> Permits {
        Permits::new("test", Limits { per_address, silent, ..Limits::of(connections) })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_silent_connection_gives_way_and_one_that_spoke_never() {
        let permits = permits(3, 3, 3);
        let local = address("127.0.0.1");
        let spoken = permits.take(local).unwrap();
        spoken.spoke();
        let (old, new) = (permits.take(local).unwrap(), permits.take(local).unwrap());
        let newest = permits.take(local).unwrap();
        assert!(old.evicted.is_cancelled() && !new.evicted.is_cancelled() && !spoken.evicted.is_cancelled());
        drop(old);
        assert_eq!(permits.count(), 3, "its permit was taken once");
        new.spoke();
        newest.spoke();
        assert!(permits.take(local).is_none(), "all have spoken");
        drop(new);
        assert!(permits.take(local).is_some());
    }

    #[test]
    fn silent_connections_are_few_even_where_there_is_room() {
        let permits = permits(100, 100, 2);
        let local = address("::1");
        let all: Vec<Permit> = (0..5).map(|_| permits.take(local).unwrap()).collect();
        let evicted: Vec<bool> = all.iter().map(|permit| permit.evicted.is_cancelled()).collect();
        assert_eq!((evicted, permits.count()), (vec![true, true, true, false, false], 2));
    }

    #[test]
    fn one_address_cannot_take_all_places_unless_it_is_this_machine() {
        let permits = permits(4, 2, 4);
        let spoken = |from: &str| permits.take(address(from)).inspect(Permit::spoke);
        let greedy = [spoken("2001:db8::1"), spoken("2001:db8::2"), spoken("2001:db8::3")];
        assert_eq!(greedy.each_ref().map(Option::is_some), [true, true, false], "one network is one client");
        let silent = permits.take(address("10.0.0.1")).unwrap();
        let mapped = spoken("::ffff:10.0.0.1").unwrap();
        assert!(!silent.evicted.is_cancelled() && permits.take(address("10.0.0.1")).is_some());
        assert!(silent.evicted.is_cancelled(), "of the same address, written otherwise");
        drop((greedy, mapped));
        let local: Vec<_> = (0..4).map(|_| spoken("127.0.0.1")).collect();
        assert!(local.iter().all(Option::is_some));
    }

    #[test]
    fn a_flood_is_said_in_one_line() {
        let mut complaints = Complaints::default();
        let said: Vec<u64> = (0..1_000).filter_map(|_| complaints.due()).collect();
        assert_eq!((said, complaints.count), (vec![1], 999));
    }
}
