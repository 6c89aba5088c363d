//! Opens connections to a coordinator.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};

/// Longest time that a connection may take to open.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Time between pings on a long-lived connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Time to wait for the answer to a ping.
const PING_DEADLINE: Duration = Duration::from_secs(5);

/// Opens connections to one coordinator.
#[derive(Clone, Debug)]
pub struct Dialer {
    address: String,
    endpoint: Endpoint,
}

impl Dialer {
    /// A dialer for `address`; `None` if it is not `HOST:PORT` with a port above 0.
    pub fn to(address: &str) -> Option<Self> {
        let (host, port) = address.rsplit_once(':')?;
        if host.is_empty() || port.parse::<u16>().ok()? == 0 {
            return None;
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint.connect_timeout(CONNECT_DEADLINE).tcp_nodelay(true);
        Some(Self { address: address.to_owned(), endpoint })
    }

    /// Makes connections send pings, to detect a lost connection: for long-lived connections.
    #[must_use]
    pub fn kept(self) -> Self {
        let endpoint = self.endpoint.http2_keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_DEADLINE);
        Self { endpoint: endpoint.keep_alive_while_idle(true), ..self }
    }

    /// The coordinator's address, as it was passed to [`Dialer::to`].
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens a connection. If it is lost later, the next call on it reconnects.
    ///
    /// # Errors
    /// If the connection is refused, or not open within 5 s.
    pub async fn connect(&self) -> Result<Channel, Error> {
        self.endpoint.connect().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["localhost:7070", "127.0.0.1:1", "[::1]:7070", "node-3.example.org:65535"] {
            assert_eq!(Dialer::to(good).map(|dialer| dialer.address().to_owned()).as_deref(), Some(good));
        }
        for bad in ["", "localhost", ":7070", "localhost:0", "localhost:65536", "localhost:x", "local host:7070"] {
            assert!(Dialer::to(bad).is_none(), "{bad}");
        }
    }
}
