//! Serves gRPC on a port.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Error, Server};

use crate::listen::Port;

/// Time between pings on a connection, and time to wait for their answer. Pings detect lost peers.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Calls that one connection may have open at a time. Our own clients have a few.
const STREAMS: u32 = 64;

/// Serves `routes` on `port` until `stop` is cancelled and all open streams have ended.
pub async fn serve(port: Port, routes: Routes, stop: CancellationToken) -> Result<(), Error> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS)
        .add_routes(routes);
    server.serve_with_incoming_shutdown(port.incoming(), stop.cancelled_owned()).await
}
