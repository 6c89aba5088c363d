//! A listening port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use super::connection::Connection;
use super::limits::Limits;
use super::permits::Permits;
use super::speaks::Speaks;

/// Pause after the system could not accept a connection, for example because no file descriptor is left. An immediate retry would
/// fail, too.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepted connections that wait for the server.
const ACCEPTED: usize = 1;

/// A listening port with its limits.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    speaks: Speaks,
    permits: Permits,
}

impl Port {
    /// Binds `address` and listens.
    pub async fn open(address: SocketAddr, speaks: Speaks, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, speaks, permits: Permits::new(speaks.name(), limits) })
    }

    /// The bound address. Its port is never 0: the system has chosen one then.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The limits on its connections.
    pub fn limits(&self) -> &Limits {
        self.permits.limits()
    }

    #[cfg(test)]
    pub(super) fn permits(&self) -> Permits {
        self.permits.clone()
    }

    /// The next connection that gets a permit; others are closed at once. Cancel-safe.
    pub async fn accept(&self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((tcp, peer)) => {
                    let Some(permit) = self.permits.take(peer.ip()) else { continue };
                    // Without TCP_NODELAY small messages are delayed.
                    if let Err(error) = tcp.set_nodelay(true) {
                        debug!(%peer, %error, "cannot set TCP_NODELAY");
                    }
                    let Limits { greeting, still, .. } = *self.permits.limits();
                    return Connection::new(tcp, permit, self.speaks, greeting, still);
                }
                Err(error) if is_of_connection(&error) => debug!(%error, "lost a connection before accepting it"),
                Err(error) => {
                    self.permits.failed(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// A stream of all future connections. Dropping it closes the port.
    pub fn incoming(self) -> ReceiverStream<io::Result<Connection>> {
        let (to, stream) = mpsc::channel(ACCEPTED);
        tokio::spawn(async move {
            loop {
                let connection = tokio::select! {
                    biased;
                    () = to.closed() => return,
                    connection = self.accept() => connection,
                };
                if to.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(stream)
    }
}

/// Whether `error` concerns one connection only, so that the next one may be accepted at once.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
