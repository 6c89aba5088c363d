//! A connection that closes itself when it is not used.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::permits::Permit;
use super::speaks::Speaks;

type Boxed<F> = Pin<Box<F>>;

/// A TCP connection with a permit at its port.
pub struct Connection {
    tcp: TcpStream,
    permit: Permit,
    speaks: Speaks,
    /// Bytes received so far.
    received: usize,
    /// Completes with the reason to close a silent connection; `None` after the client has begun to use the connection.
    silent: Option<Boxed<dyn Future<Output = &'static str> + Send>>,
    still: Stillness,
}

/// Time since the last byte was sent or received. It is checked only when the connection is polled.
struct Stillness {
    limit: Duration,
    moved: Instant,
    sleep: Boxed<Sleep>,
}

impl Connection {
    pub(super) fn new(tcp: TcpStream, permit: Permit, speaks: Speaks, greeting: Duration, still: Duration) -> Self {
        let evicted = permit.evicted.clone().cancelled_owned();
        let silent: Boxed<dyn Future<Output = &'static str> + Send> = match speaks {
            Speaks::Http2 => Box::pin(async move {
                tokio::select! {
                    () = evicted => "a limit on connections was reached, and this silent connection was evicted",
                    () = sleep(greeting) => "the client did not send the HTTP/2 preface in time",
                }
            }),
            Speaks::Http1 => Box::pin(async move {
                evicted.await;
                "a limit on connections was reached, and this silent connection was evicted"
            }),
        };
        let still = Stillness { limit: still, moved: Instant::now(), sleep: Box::pin(sleep(still)) };
        Self { tcp, permit, speaks, received: 0, silent: Some(silent), still }
    }

    fn moved(&mut self, received: usize, sent: usize) {
        self.still.moved = Instant::now();
        self.received = self.received.saturating_add(received);
        if self.silent.is_some() && self.speaks.has_spoken(self.received, sent) {
            self.silent = None;
            self.permit.spoke();
        }
    }

    /// Called when no data can be sent or received at the moment: an error if that has lasted too long.
    fn poll_end<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if let Some(silent) = &mut self.silent
            && let Poll::Ready(why) = silent.as_mut().poll(context)
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        let Stillness { limit, moved, sleep } = &mut self.still;
        loop {
            ready!(sleep.as_mut().poll(context));
            let due = *moved + *limit;
            if Instant::now() >= due {
                let why = format!("no data was sent or received for {} s", limit.as_secs());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            sleep.as_mut().reset(due);
        }
    }

    fn sent(&mut self, polled: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(done) => {
                self.moved(0, *done.as_ref().unwrap_or(&0));
                Poll::Ready(done)
            }
            Poll::Pending => self.poll_end(context),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.tcp).poll_read(context, buffer) {
            Poll::Ready(done) => {
                this.moved(buffer.filled().len() - before, 0);
                Poll::Ready(done)
            }
            Poll::Pending => this.poll_end(context),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.tcp).poll_write(context, bytes);
        this.sent(polled, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.tcp).poll_write_vectored(context, slices);
        this.sent(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.tcp.connect_info()
    }
}
