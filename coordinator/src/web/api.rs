//! The HTTP API of the page: translates paths and parameters to questions, and returns the documents unchanged.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Extension, Router};
use lockstep_common::{Digest, RequestId, quoted, shortened};
use lockstep_rpc::query_request::What;
use lockstep_rpc::tracked_query::What as Tracked;
use lockstep_rpc::{BlobChunk, CurvesQuery, Empty, LogChunk, RunsQuery, TrackedQuery};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::events;
use super::server::Peer;
use super::site::Site;
use crate::api::logs;
use crate::node::CallError;
use crate::query::documents;
use crate::query::page::MOST_ROWS;

const JSON: &str = "application/json";

/// Default number of bytes of a log.
const TAIL: usize = 64 << 10;
/// Maximum number of bytes of a log.
const MOST_TAIL: usize = 4 << 20;
/// Queued pieces of a log.
const PIECES: usize = 16;
/// Maximum size of a blob that the page serves, in bytes.
const MOST_BLOB: u64 = 64 << 20;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/runs", get(runs))
        .route("/jobs", get(jobs))
        .route("/nodes", get(|State(site): State<Site>| ask(site, What::Nodes(Empty {}))))
        .route("/coordinator", get(|State(site): State<Site>| ask(site, What::Coordinator(Empty {}))))
        .route("/runs/{run}", get(|State(site): State<Site>, Path(run)| ask(site, What::Run(run))))
        .route("/checkpoints/{id}", get(|State(site): State<Site>, Path(id)| ask(site, What::Manifest(id))))
        .route("/runs/{run}/series", get(series))
        .route("/runs/{run}/points", get(points))
        .route("/runs/{run}/histograms", get(histograms))
        .route("/runs/{run}/media", get(|state, run| tracked(state, run, Tracked::Media(Empty {}))))
        .route("/runs/{run}/model", get(|state, run| tracked(state, run, Tracked::Model(Empty {}))))
        .route("/runs/{run}/alarms", get(|state, run| tracked(state, run, Tracked::Alarms(Empty {}))))
        .route("/runs/{run}/logs", get(log))
        .route("/runs/{run}/tags", put(tags))
        .route("/runs/{run}/note", put(note))
        .route("/blobs/{digest}", get(blob))
        .route("/events", get(events::events))
        .fallback(|| async { (StatusCode::NOT_FOUND, "the API has no such path\n") })
}

async fn ask(site: Site, what: What) -> Response {
    match site.answers.answer(what).await {
        Ok(json) => site.large.answer(JSON, json),
        Err(status) => refused(&status),
    }
}

/// With `limit` one page, otherwise all runs.
#[derive(Debug, Deserialize)]
struct PageParameters {
    limit: Option<u32>,
    before: Option<u64>,
}

async fn runs(State(site): State<Site>, Query(asked): Query<PageParameters>) -> Response {
    ask(site, What::Runs(RunsQuery { recent: false, limit: asked.limit, before: asked.before })).await
}

/// The jobs of one page of runs or of all runs, in canonical form, by run id.
async fn jobs(State(site): State<Site>, Query(asked): Query<PageParameters>) -> Response {
    let _permit = match site.large.permit().await {
        Ok(permit) => permit,
        Err(status) => return refused(&status),
    };
    let (mut jobs, mut before) = (BTreeMap::new(), asked.before);
    loop {
        let page = match site.answers.runs().jobs(before, asked.limit.map_or(MOST_ROWS, |limit| limit as usize)).await {
            Ok(page) => page,
            Err(status) => return refused(&status),
        };
        jobs.extend(page.runs.into_iter().map(|(run, job)| (run.to_string(), job)));
        if asked.limit.is_some() || page.older == 0 {
            return site.large.answer(JSON, documents::encode(&jobs));
        }
        before = Some(page.before);
    }
}

async fn tracked(State(site): State<Site>, Path(run): Path<String>, what: Tracked) -> Response {
    ask(site, What::Tracked(TrackedQuery { run, what: Some(what) })).await
}

#[derive(Debug, Deserialize)]
struct SeriesParameters {
    #[serde(default)]
    branch: u32,
}

async fn series(state: State<Site>, run: Path<String>, Query(asked): Query<SeriesParameters>) -> Response {
    tracked(state, run, Tracked::Series(asked.branch)).await
}

#[derive(Debug, Deserialize)]
struct HistogramParameters {
    #[serde(default)]
    name: String,
}

async fn histograms(state: State<Site>, run: Path<String>, Query(asked): Query<HistogramParameters>) -> Response {
    tracked(state, run, Tracked::Histograms(asked.name)).await
}

/// `name` may occur more than once, which `Query` does not support.
async fn points(state: State<Site>, run: Path<String>, RawQuery(query): RawQuery) -> Response {
    match curves_query(&query.unwrap_or_default()) {
        Ok(query) => tracked(state, run, Tracked::Curves(query)).await,
        Err(words) => (StatusCode::BAD_REQUEST, words).into_response(),
    }
}

fn curves_query(text: &str) -> Result<CurvesQuery, String> {
    let mut query = CurvesQuery::default();
    for (key, value) in form(text) {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("`{}`: `{}` is not a whole number\n", quoted(&key), quoted(&value)))
        };
        let small =
            || u32::try_from(number()?).map_err(|_| format!("`{}`: `{}` is too large\n", quoted(&key), quoted(&value)));
        match key.as_str() {
            "name" => query.names.push(value),
            "part" => query.part = Some(small()?),
            "from" => query.from = number()?,
            "to" => query.to = Some(number()?),
            "pixels" => query.pixels = small()?,
            "branch" => query.branch = small()?,
            _ => {
                return Err(format!(
                    "`{}` is not a parameter of `points`: expected name, part, from, to, pixels, branch\n",
                    quoted(&key)
                ));
            }
        }
    }
    Ok(query)
}

/// Decodes the keys and values of a query string.
fn form(text: &str) -> Vec<(String, String)> {
    let decode = |part: &str| {
        let mut bytes = Vec::with_capacity(part.len());
        let mut rest = part.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap_or_default(), rest.next().unwrap_or_default()];
                    let text = std::str::from_utf8(&digits).unwrap_or_default();
                    u8::from_str_radix(text, 16).unwrap_or(b'?')
                }
                byte => byte,
            });
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

async fn tags(State(site): State<Site>, Path(run): Path<String>, body: String) -> Response {
    match serde_json::from_str(&body) {
        Ok(tags) => annotate(site, run, Some(tags), None).await,
        Err(_) => (StatusCode::BAD_REQUEST, "expected a JSON array of strings\n").into_response(),
    }
}

async fn note(State(site): State<Site>, Path(run): Path<String>, body: String) -> Response {
    match serde_json::from_str(&body) {
        Ok(note) => annotate(site, run, None, Some(note)).await,
        Err(_) => (StatusCode::BAD_REQUEST, "expected a JSON string\n").into_response(),
    }
}

async fn annotate(site: Site, run: String, tags: Option<Vec<String>>, note: Option<String>) -> Response {
    let mut id = [0; 16];
    if getrandom::fill(&mut id).is_err() {
        return refused(&CallError::Entropy.into());
    }
    match site.answers.handle().annotate(RequestId::from_bytes(id), &run, tags, note).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&error.into()),
    }
}

#[derive(Debug, Deserialize)]
struct LogParameters {
    process: Option<u32>,
    tail: Option<usize>,
}

/// The last `tail` bytes of the logs of a run, or of one process.
async fn log(State(site): State<Site>, Path(run): Path<String>, Query(asked): Query<LogParameters>) -> Response {
    let handle = site.answers.handle().clone();
    let run = match handle.find_run(&run).await {
        Ok(run) => run,
        Err(error) => return refused(&error.into()),
    };
    let _permit = match site.large.permit().await {
        Ok(permit) => permit,
        Err(status) => return refused(&status),
    };
    let (to, mut pieces) = mpsc::channel::<Result<LogChunk, Status>>(PIECES);
    let reading = tokio::spawn(logs::stream(handle, site.answers.runs().clone(), run, asked.process, false, to));
    let tail = asked.tail.unwrap_or(TAIL).min(MOST_TAIL);
    let mut text = Vec::new();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Ok(chunk) => text.extend_from_slice(&chunk.text),
            Err(status) => return refused(&status),
        }
        let excess = text.len().saturating_sub(tail);
        if excess > tail {
            text.drain(..excess);
        }
    }
    // The task has ended, because its channel is closed.
    drop(reading);
    text.drain(..text.len().saturating_sub(tail));
    site.large.answer("text/plain; charset=utf-8", text)
}

/// A blob of a run: an image, a text or a file. PNG images are sent as images. All others are sent as downloads, so that a browser never
/// interprets their contents.
async fn blob(
    State(site): State<Site>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(digest): Path<String>,
) -> Response {
    let Ok(digest) = digest.parse::<Digest>() else {
        return (StatusCode::BAD_REQUEST, "not a digest: expected 64 hexadecimal digits\n").into_response();
    };
    let piece = match site.blobs.find(digest).await {
        Ok(piece) if piece.bytes <= MOST_BLOB => piece,
        Ok(piece) => {
            let words = format!(
                "blob `{digest}` has {} bytes, but the page serves at most {MOST_BLOB}: read it from the store\n",
                piece.bytes
            );
            return (StatusCode::NOT_FOUND, words).into_response();
        }
        Err(status) => return refused(&status),
    };
    let bytes = piece.bytes;
    let (to, mut chunks) = mpsc::channel(1);
    let permit = match site.blobs.permit(peer) {
        Ok(permit) => permit,
        Err(status) => return refused(&status),
    };
    tokio::spawn(site.blobs.send(permit, piece, 0, to));
    let first = match chunks.recv().await {
        Some(Ok(BlobChunk { data })) => data,
        Some(Err(status)) => return refused(&status),
        None => Vec::new(),
    };
    let kind = if first.starts_with(b"\x89PNG\r\n\x1a\n") { "image/png" } else { "application/octet-stream" };
    let rest = ReceiverStream::new(chunks).map(|chunk| chunk.map(|chunk| chunk.data));
    let body = Body::from_stream(tokio_stream::once(Ok(first)).chain(rest));
    let answer = Response::builder().header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, bytes);
    answer.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Converts a gRPC status to an HTTP response.
fn refused(status: &Status) -> Response {
    let code = match status.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::NotFound | Code::OutOfRange => StatusCode::NOT_FOUND,
        Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, format!("{}\n", shortened(status.message()))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_points_is_read_with_all_its_names() {
        let query = curves_query("name=loss&name=grad_norm%2F*&pixels=800&from=5&part=3").unwrap();
        assert_eq!(query.names, ["loss", "grad_norm/*"]);
        assert_eq!((query.pixels, query.from, query.part, query.to), (800, 5, Some(3), None));
        let error = curves_query("pixel=8").unwrap_err();
        assert!(error.contains("`pixel` is not a parameter"), "{error}");
        assert!(curves_query("from=-1").unwrap_err().contains("`-1` is not a whole number"));
        assert_eq!(
            form("a=%&b=%4&c=%e4"),
            [("a".into(), "?".into()), ("b".into(), "?".into()), ("c".into(), "\u{fffd}".into())]
        );
    }
}
