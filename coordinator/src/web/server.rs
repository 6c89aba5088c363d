//! The HTTP/1 server of the page, with time limits.

use std::net::SocketAddr;
use std::pin::pin;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected as _;
use tracing::debug;

use lockstep_net::listen::Port;

/// Maximum size of a request's head, and of its read-ahead buffer, in bytes. Browsers send less than 8 KiB.
const BUFFER_BYTES: usize = 64 << 10;

/// Address of the client of a request, if it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<SocketAddr>);

/// Serves until `stop` is cancelled, and then until all started responses are complete.
pub(super) async fn serve(port: Port, router: Router, stop: CancellationToken) {
    let mut server = http1::Builder::new();
    // The time limit for each request's head also closes idle connections.
    server.timer(TokioTimer::new()).header_read_timeout(port.limits().greeting).max_buf_size(BUFFER_BYTES);
    let connections = TaskTracker::new();
    loop {
        let connection = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            connection = port.accept() => connection,
        };
        let (peer, service) = (connection.connect_info().remote_addr(), TowerToHyperService::new(router.clone()));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            service.call(request)
        });
        let serving = server.serve_connection(TokioIo::new(connection), service);
        let stop = stop.clone();
        connections.spawn(async move {
            let mut serving = pin!(serving);
            let ended = tokio::select! {
                biased;
                ended = serving.as_mut() => ended,
                () = stop.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                debug!(%error, "a connection to the page failed");
            }
        });
    }
    // Accepts no more connections.
    drop(port);
    connections.close();
    connections.wait().await;
}
