//! A port that listens.

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

/// Pause after the system gave no connection (no file is left, no memory): asked again at once, it would say the same.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait for the server to take them.
const ACCEPTED: usize = 1;

/// A port that listens, with its limits.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    speaks: Speaks,
    permits: Permits,
}

impl Port {
    /// Listens at `address`.
    pub async fn open(address: SocketAddr, speaks: Speaks, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, speaks, permits: Permits::new(speaks.name(), limits) })
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What its connections may take.
    pub fn limits(&self) -> &Limits {
        self.permits.limits()
    }

    #[cfg(test)]
    pub(super) fn permits(&self) -> Permits {
        self.permits.clone()
    }

    /// The next connection that gets a permit; others are closed at once. May be dropped and called again.
    pub async fn accept(&self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((tcp, peer)) => {
                    let Some(permit) = self.permits.take(peer.ip()) else { continue };
                    // Without it small messages are late.
                    if let Err(error) = tcp.set_nodelay(true) {
                        debug!(%peer, %error, "cannot be told not to wait");
                    }
                    let Limits { greeting, still, .. } = *self.permits.limits();
                    return Connection::new(tcp, permit, self.speaks, greeting, still);
                }
                Err(error) if is_of_connection(&error) => debug!(%error, "a connection broke before it was taken"),
                Err(error) => {
                    self.permits.failed(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// All connections to come, until the stream is dropped.
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

/// Whether the next connection may well be sound.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
