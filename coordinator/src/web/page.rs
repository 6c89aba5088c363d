//! The page's server: start, routes and shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::events::Events;
use super::large::Large;
use super::site::Site;
use super::teller::Teller;
use super::{api, assets, guard, prometheus, server};
use crate::api::blobs::Blobs;
use crate::numbers::tracker::Tracker;
use crate::query::Answers;
use lockstep_net::listen::Port;

/// Time limit at shutdown for open responses.
const GRACE: Duration = Duration::from_secs(2);

/// The running server, with the task that creates events.
#[derive(Debug)]
pub(crate) struct Page {
    address: SocketAddr,
    server: JoinHandle<()>,
    /// The task that creates events.
    teller: JoinHandle<()>,
    #[cfg(test)]
    rows_made: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Page {
    /// Serves on `port` until `stop` is cancelled, with at most `listeners` simultaneous subscribers of events.
    pub(crate) fn serve(
        port: Port,
        answers: Answers,
        tracker: &Tracker,
        blobs: Blobs,
        listeners: usize,
        stop: CancellationToken,
    ) -> Self {
        let address = port.address().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        let events = Events::new(listeners, stop.clone());
        let teller = Teller::new(answers.clone(), events.clone(), stop.clone());
        #[cfg(test)]
        let rows_made = teller.rows_made();
        let site = Site { answers, events, blobs, large: Large::default(), local: address.ip().is_loopback() };
        let teller = tokio::spawn(teller.run(tracker.changes().subscribe()));
        let server = tokio::spawn(server::serve(port, router(site), stop));
        Self {
            address,
            server,
            teller,
            #[cfg(test)]
            rows_made,
        }
    }

    /// See [`Teller::rows_made`].
    #[cfg(test)]
    pub(crate) fn rows_made(&self) -> u64 {
        self.rows_made.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server has stopped; after [`GRACE`] aborts it. `stop` must be cancelled before.
    pub(crate) async fn end(mut self) {
        // The task can be aborted, because it has nothing to write.
        self.teller.abort();
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            warn!("a browser did not receive its last response within {} s: closing its connection", GRACE.as_secs());
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
