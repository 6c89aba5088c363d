//! Limits of blob transfers in one direction: number of transfers in total and per client, and minimum rate.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_rpc::busy;
use tokio::time::{Instant, timeout};
use tonic::Status;

use lockstep_net::listen::{block_of, one_less};

/// Time in which a transfer must move [`LEAST_BYTES`].
const WINDOW: Duration = Duration::from_mins(2);

/// With [`WINDOW`] a rate of 8.3 KB/s, slower than any usual link. Without a minimum, a client that sends a few bytes now and then could
/// hold a permit for ever.
const LEAST_BYTES: u64 = 1_000_000;

/// One connection gets at most one eighth of the permits. `coord` uses four.
const OF_CONNECTION: usize = 8;

/// One address of another machine gets at most half of the permits, as of connections.
const OF_ADDRESS: usize = 2;

/// Permits for transfers. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Permits {
    /// Kind of transfer in messages: `uploads` or `downloads`.
    what: &'static str,
    most: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    all: usize,
    by_connection: BTreeMap<SocketAddr, usize>,
    by_address: BTreeMap<IpAddr, usize>,
}

/// The permit of one transfer. Dropping it frees the permit.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Permits,
    from: Option<SocketAddr>,
}

impl Permits {
    /// `most` permits. `what` is the kind of transfer in messages: `uploads` or `downloads`.
    pub(super) fn new(most: usize, what: &'static str) -> Self {
        Self { what, most, table: Arc::default() }
    }

    /// A permit for a client with the address `from`, if it is known.
    ///
    /// # Errors
    /// `Unavailable`, marked as busy, if all permits are taken, or all of this connection or address.
    pub(super) fn take(&self, from: Option<SocketAddr>) -> Result<Permit, Status> {
        let Self { what, most, .. } = self;
        let mut table = self.table();
        if table.all >= *most {
            return Err(busy(format!("{most} {what} are in progress, which is the maximum: try again")));
        }
        if let Some(from) = from {
            let of_connection = most.div_ceil(OF_CONNECTION);
            if table.by_connection.get(&from).is_some_and(|count| *count >= of_connection) {
                return Err(busy(format!(
                    "{of_connection} {what} of this connection are in progress, which is the maximum: try again"
                )));
            }
            let (block, of_address) = (block_of(from.ip()), most.div_ceil(OF_ADDRESS));
            // All local users share the loopback addresses, so those have no limit of their own.
            if !block.is_loopback() && table.by_address.get(&block).is_some_and(|count| *count >= of_address) {
                return Err(busy(format!(
                    "{of_address} {what} of the address {block} are in progress, which is the maximum: try again"
                )));
            }
            *table.by_connection.entry(from).or_default() += 1;
            *table.by_address.entry(block).or_default() += 1;
        }
        table.all += 1;
        Ok(Permit { permits: self.clone(), from })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.permits.table();
        table.all -= 1;
        if let Some(from) = self.from {
            one_less(&mut table.by_connection, &from);
            one_less(&mut table.by_address, &block_of(from.ip()));
        }
    }
}

/// The minimum rate of a transfer. Only time that is spent waiting for the client counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    window: Duration,
    least: u64,
    /// Time and bytes since the last time that `least` bytes were complete.
    waited: Duration,
    moved: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(WINDOW, LEAST_BYTES)
    }
}

impl Pace {
    /// At least `least` bytes in each `window`.
    pub(super) const fn new(window: Duration, least: u64) -> Self {
        Self { window, least, waited: Duration::ZERO, moved: 0 }
    }

    /// Awaits `turn`, which depends on the client, and counts the time.
    ///
    /// # Errors
    /// `DeadlineExceeded` if the client is too slow.
    pub(super) async fn wait<T>(&mut self, turn: impl Future<Output = T>) -> Result<T, Status> {
        let began = Instant::now();
        let done = timeout(self.window.saturating_sub(self.waited), turn).await.map_err(|_| self.too_slow())?;
        self.waited += began.elapsed();
        Ok(done)
    }

    /// Counts transferred bytes.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if self.moved >= self.least {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    fn too_slow(&self) -> Status {
        let Self { window, least, moved, .. } = self;
        let seconds = window.as_secs_f32();
        Status::deadline_exceeded(format!(
            "the transfer of a blob is too slow: {moved} bytes in {seconds} s, but the minimum is {least}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use lockstep_rpc::is_busy;
    use tonic::Code;

    use super::*;

    #[test]
    fn no_connection_and_no_other_machine_has_all_places() {
        let permits = Permits::new(16, "uploads");
        let take = |from: &str| permits.take(Some(from.parse().unwrap()));
        let words = |refused: Result<Permit, Status>| {
            let status = refused.unwrap_err();
            assert!(status.code() == Code::Unavailable && is_busy(&status), "{status:?}");
            status.message().to_owned()
        };
        let two = [take("127.0.0.1:1").unwrap(), take("127.0.0.1:1").unwrap()];
        assert_eq!(
            words(take("127.0.0.1:1")),
            "2 uploads of this connection are in progress, which is the maximum: try again"
        );
        drop(two);
        take("127.0.0.1:1").unwrap();
        let network: Vec<Permit> = (1..=8).map(|port| take(&format!("[2001:db8::{port}]:{port}")).unwrap()).collect();
        assert_eq!(
            words(take("[2001:db8::9]:9")),
            "8 uploads of the address 2001:db8:: are in progress, which is the maximum: try again"
        );
        let local: Vec<Permit> = (1..=8).map(|port| take(&format!("127.0.0.1:{port}")).unwrap()).collect();
        assert_eq!(words(take("10.0.0.1:1")), "16 uploads are in progress, which is the maximum: try again");
        drop((network, local));
        let table = permits.table();
        assert_eq!((table.all, table.by_connection.len(), table.by_address.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_stream_that_moves_too_little_ends_however_often_something_comes() {
        let mut pace = Pace::new(Duration::from_millis(100), 1_000);
        let mut turns = 0;
        let slow = loop {
            match pace.wait(tokio::time::sleep(Duration::from_millis(5))).await {
                Ok(()) => pace.moved(1),
                Err(status) => break status,
            }
            turns += 1;
            assert!(turns < 1_000, "the transfer never ends");
        };
        assert!(slow.code() == Code::DeadlineExceeded && slow.message().contains("but the minimum is 1000"), "{slow}");
        let mut pace = Pace::new(Duration::from_millis(100), 1_000);
        for _ in 0..50 {
            pace.wait(tokio::time::sleep(Duration::from_millis(5))).await.unwrap();
            pace.moved(1_000);
        }
    }
}
