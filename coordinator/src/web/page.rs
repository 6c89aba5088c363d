//! The server of the page: what it needs, its routes, and its end.

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

/// Time that open answers get at the end.
const GRACE: Duration = Duration::from_secs(2);

/// The running server.
#[derive(Debug)]
pub(crate) struct Page {
    address: SocketAddr,
    server: JoinHandle<()>,
    /// Makes the events.
    teller: JoinHandle<()>,
    #[cfg(test)]
    rows_made: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Page {
    /// Serves on `port` until `stop`, with so many listeners of events at a time.
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

    /// Waits until it has ended, which it was told to.
    pub(crate) async fn end(mut self) {
        // It holds nothing that must be written.
        self.teller.abort();
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
