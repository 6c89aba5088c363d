//! Server-sent events: what has changed, as often as an eye can follow.
//!
//! One task makes the events, once for all listeners: it asks the event loop which runs have changed, and looks at those alone. A
//! listener gets those that it wants to hear.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Events that wait for a slow browser; then it is waited for.
const WAITING: usize = 64;

/// Events that a listener may be behind the others. Of one that is further behind the stream ends: its browser opens it again, and
/// reads anew what it shows.
const BEHIND: usize = 1024;

/// An event for listeners of everything, and of its run.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) kind: &'static str,
    /// None: it is about no run.
    pub(super) run: Option<String>,
    pub(super) data: Arc<str>,
}

/// Where events are told, and how many may listen. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub(super) told: broadcast::Sender<News>,
    permits: Arc<Semaphore>,
    most: usize,
    stop: CancellationToken,
}

impl Events {
    /// For `most` listeners at a time, until `stop`.
    pub(super) fn new(most: usize, stop: CancellationToken) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { told: broadcast::channel(BEHIND).0, permits: Arc::new(Semaphore::new(most)), most, stop }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    /// Only what is about this run.
    run: Option<String>,
}

pub(super) async fn events(State(events): State<Events>, Query(asked): Query<Parameters>) -> Response {
    let Ok(permit) = Arc::clone(&events.permits).try_acquire_owned() else {
        let words = format!(
            "{} listeners hear this coordinator's events already: close pages, or raise `limits.page_listeners` in \
             coordinator.toml\n",
            events.most
        );
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    };
    let (to, stream) = mpsc::channel(WAITING);
    // From here on: what is read after the answer began has all that is not told.
    let told = events.told.subscribe();
    tokio::spawn(async move {
        tell(&events.stop, told, asked.run, to).await;
        drop(permit);
    });
    Sse::new(ReceiverStream::new(stream)).keep_alive(KeepAlive::default()).into_response()
}

/// Tells until the browser is gone or too slow, or the coordinator ends.
async fn tell(
    stop: &CancellationToken,
    mut told: broadcast::Receiver<News>,
    only: Option<String>,
    to: mpsc::Sender<Result<Event, Infallible>>,
) {
    loop {
        let news = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = to.closed() => return,
            news = told.recv() => news,
        };
        // It is too far behind, or nothing is told any more.
        let Ok(News { kind, run, data }) = news else { return };
        if let (Some(run), Some(only)) = (&run, &only)
            && !run.starts_with(only)
        {
            continue;
        }
        if to.send(Ok(Event::default().event(kind).data(&data))).await.is_err() {
            return;
        }
    }
}
