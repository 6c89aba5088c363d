//! The page and its API, for browsers: HTTP on a port of its own. It reads, and changes nothing but notes and tags.
//!
//! Everything that it needs comes from this coordinator: there is no request to anywhere else, and the browser is told to
//! allow none.

mod api;
mod assets;
mod events;
mod guard;
mod prometheus;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use lockstep_host::blobs::{BlobError, BlobStore};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::answers::Answers;
use crate::tracker::{Changes, Tracker};

/// Time that open answers get at the end.
const GRACE: Duration = Duration::from_secs(2);

/// What handlers need.
#[derive(Clone, Debug)]
struct Site {
    answers: Answers,
    changes: Changes,
    blobs: Arc<BlobStore>,
    stop: CancellationToken,
    /// Whether only this machine can reach it.
    local: bool,
}

/// The running server.
#[derive(Debug)]
pub(crate) struct Page {
    address: SocketAddr,
    server: JoinHandle<std::io::Result<()>>,
}

impl Page {
    /// Serves on `listener` until `stop`.
    pub(crate) fn serve(
        listener: TcpListener,
        answers: Answers,
        tracker: &Tracker,
        store: &Path,
        stop: CancellationToken,
    ) -> Result<Self, BlobError> {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        let site = Site {
            answers,
            changes: tracker.changes(),
            blobs: Arc::new(BlobStore::open(store)?),
            stop: stop.clone(),
            local: address.ip().is_loopback(),
        };
        let serving = axum::serve(listener, router(site)).with_graceful_shutdown(stop.cancelled_owned());
        Ok(Self { address, server: tokio::spawn(serving.into_future()) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has ended, which it was told to.
    pub(crate) async fn end(mut self) {
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            warn!("a browser did not take its last answer: leaving it");
            self.server.abort();
        }
    }
}

fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(assets::index))
        .route("/assets/{name}", get(assets::asset))
        .route("/metrics", get(prometheus::metrics))
        .nest("/api", api::routes())
        .layer(middleware::from_fn_with_state(site.clone(), guard::guard))
        .with_state(site)
}
