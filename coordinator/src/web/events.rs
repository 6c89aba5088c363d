//! Server-sent events about changes of runs and nodes, at most ten times per second.
//!
//! One task ([`super::teller`]) creates each event once, for all listeners. A listener receives all events, or those of one run.

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

/// Capacity of the queue of a listener.
const WAITING: usize = 64;

/// Number of events that a listener may lag behind. Beyond that its stream ends, and the browser reconnects and reads everything again.
const BEHIND: usize = 1024;

/// An event as it is sent to listeners.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) kind: &'static str,
    /// `None`: the event is not about a run, and all listeners receive it.
    pub(super) run: Option<String>,
    pub(super) data: Arc<str>,
}

/// The channel of events, and permits for listeners. Clones share both.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub(super) told: broadcast::Sender<News>,
    permits: Arc<Semaphore>,
    most: usize,
    stop: CancellationToken,
}

impl Events {
    /// For at most `most` simultaneous listeners. Their streams end when `stop` is cancelled.
    pub(super) fn new(most: usize, stop: CancellationToken) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { told: broadcast::channel(BEHIND).0, permits: Arc::new(Semaphore::new(most)), most, stop }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    /// Only events of this run (id or prefix), and those that are not about a run.
    run: Option<String>,
}

pub(super) async fn events(State(events): State<Events>, Query(asked): Query<Parameters>) -> Response {
    let Ok(permit) = Arc::clone(&events.permits).try_acquire_owned() else {
        let words = format!(
            "{} browsers receive live events already, which is the maximum: close pages, or raise `limits.page_listeners` in \
             coordinator.toml\n",
            events.most
        );
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    };
    let (to, stream) = mpsc::channel(WAITING);
    // Subscribes before the response starts. A browser that reads the state afterwards misses no change.
    let told = events.told.subscribe();
    tokio::spawn(async move {
        tell(&events.stop, told, asked.run, to).await;
        drop(permit);
    });
    Sse::new(ReceiverStream::new(stream)).keep_alive(KeepAlive::default()).into_response()
}

/// Sends events until the browser is gone or lags too far behind, or the coordinator shuts down.
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
        // An error means that the listener lags too far behind, or that the channel is closed.
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
