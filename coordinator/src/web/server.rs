//! The server of the page: HTTP/1 with deadlines.

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

/// Longest head of a request, and what is read ahead of its body: browsers send less than 8 KiB.
const BUFFER_BYTES: usize = 64 << 10;

/// The other end of the connection that a request came on, if that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<SocketAddr>);

/// Serves until `stop`; then ends once every answer that has begun is taken.
pub(super) async fn serve(port: Port, router: Router, stop: CancellationToken) {
    let mut server = http1::Builder::new();
    // Of each request: a connection that has none to send is closed, too.
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
                debug!(%error, "a connection of the page broke");
            }
        });
    }
    // Nobody can connect any more.
    drop(port);
    connections.close();
    connections.wait().await;
}
