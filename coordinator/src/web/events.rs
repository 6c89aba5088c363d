//! Server-sent events: what has changed, as often as an eye can follow.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use lockstep_core::ClusterState;
use lockstep_core::view::RunRow;
use serde::Deserialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Site;
use crate::documents;

/// Changes within this time are told together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Events that wait for a slow browser; then it is waited for.
const WAITING: usize = 64;

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    /// Only what is about this run.
    run: Option<String>,
}

pub(super) async fn events(State(site): State<Site>, Query(asked): Query<Parameters>) -> Response {
    let (to, stream) = mpsc::channel(WAITING);
    tokio::spawn(tell(site, asked.run, to));
    Sse::new(ReceiverStream::new(stream)).keep_alive(KeepAlive::default()).into_response()
}

/// Tells until the browser is gone or the coordinator ends.
async fn tell(site: Site, only: Option<String>, to: mpsc::Sender<Result<Event, Infallible>>) {
    let handle = site.answers.handle();
    let (mut changes, mut points) = (handle.changes(), site.changes.subscribe());
    let of_interest = |run: &str| only.as_deref().is_none_or(|only| run.starts_with(only));
    let mut known: BTreeMap<String, RunRow> = BTreeMap::new();
    let mut notes: BTreeMap<String, u64> = BTreeMap::new();
    let mut nodes = String::new();
    let mut first = true;
    let mut measured = BTreeSet::new();
    loop {
        let seen = handle.read(|state| (state.run_rows(), state.node_views(), notes_of(state))).await;
        let Ok((mut rows, now, written)) = seen else {
            return;
        };
        site.answers.add_alarms(rows.iter_mut());
        let now = documents::encode(&now);
        let mut news = Vec::new();
        let mut steps = BTreeMap::new();
        for row in rows.into_iter().filter(|row| of_interest(row.id.as_str())) {
            steps.insert(row.id.to_string(), row.step);
            if known.get(row.id.as_str()) != Some(&row) {
                if !first {
                    news.push(Event::default().event("run").data(documents::encode_row(&row)));
                }
                known.insert(row.id.to_string(), row);
            }
        }
        if std::mem::replace(&mut nodes, now) != nodes && !first {
            news.push(Event::default().event("nodes").data("{}"));
        }
        let rewritten = |(run, note): &(&String, &u64)| notes.get(*run).is_some_and(|before| before != *note);
        for (run, _) in written.iter().filter(rewritten).filter(|(run, _)| of_interest(run)) {
            news.push(Event::default().event("note").data(serde_json::json!({ "run": run }).to_string()));
        }
        notes = written;
        first = false;
        loop {
            match points.try_recv() {
                Ok(run) => drop(measured.insert(run.to_string())),
                // Whatever it missed: of everything there may be more.
                Err(TryRecvError::Lagged(_)) => measured.extend(steps.keys().cloned()),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        for run in std::mem::take(&mut measured) {
            if let Some(step) = steps.get(&run) {
                let data = serde_json::json!({ "run": run, "step": step }).to_string();
                news.push(Event::default().event("points").data(data));
            }
        }
        for event in news {
            if to.send(Ok(event)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            biased;
            () = site.stop.cancelled() => return,
            () = to.closed() => return,
            changed = changes.next() => if changed.is_err() { return },
            run = points.recv() => match run {
                Ok(run) => drop(measured.insert(run.to_string())),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
        tokio::time::sleep(TOGETHER).await;
    }
}

/// Of each run a hash of its note: whoever hears that it is another one asks for it.
fn notes_of(state: &ClusterState) -> BTreeMap<String, u64> {
    let hash = |text: &str| {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish()
    };
    state.runs().into_iter().map(|run| (run.submission.id.to_string(), hash(&run.state.note))).collect()
}
