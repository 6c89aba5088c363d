//! The page's server with slow, silent and many clients.

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lockstep_common::job::parse_toml;
use lockstep_common::{Domain, RequestId, RunId};
use lockstep_store::BlobStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::serve::{Running, start};
use crate::settings::Settings;

const DEADLINE: Duration = Duration::from_secs(10);
const JOB: &str = "name = \"walk\"\nsteps = 4\nranks = 1\nbatch = { size = 1 }\n\
     model = { kind = \"mlp\", hidden = [4], outputs = 2 }\n\
     data = { kind = \"csv\", path = \"data.csv\", target = \"y\" }\noptimizer = { kind = \"sgd\", lr = 0.1 }\n";

/// Starts a coordinator with a page, after `change` has changed its settings.
async fn coordinator(dir: &Path, change: impl FnOnce(&mut Settings)) -> (ManuallyDrop<Running>, SocketAddr) {
    let mut settings = Settings::embedded(dir);
    settings.web_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    change(&mut settings);
    let running = start(&settings).await.unwrap();
    let page = running.page().unwrap();
    // Not dropped if the test fails, because dropping waits for the coordinator's end.
    (ManuallyDrop::new(running), page)
}

async fn submit(running: &Running, number: u8) -> RunId {
    let job = String::from_utf8(parse_toml(JOB, &[]).unwrap().canonical()).unwrap();
    running.handle().submit(RequestId::from_bytes([number; 16]), job, "/x".into(), None, Vec::new()).await.unwrap()
}

/// Opens a connection, and requests `path`.
async fn ask(page: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(page).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {page}\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// Reads until `end` occurs in the text.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    while !text.contains(end) {
        let read = timeout(DEADLINE, stream.read(&mut bytes)).await.unwrap_or_else(|_| panic!("no `{end}`: {text}"));
        let count = read.unwrap();
        assert!(count > 0, "the stream ends before `{end}`: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_made_once_for_all_listeners_and_of_what_has_changed_alone() {
    const LISTENERS: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let (running, page) = coordinator(dir.path(), |_| {}).await;
    let mut early = ask(page, "/api/events").await;
    until(&mut early, "\r\n\r\n").await;
    let mut runs = Vec::new();
    for number in 0..30 {
        runs.push(submit(&running, number).await);
    }
    until(&mut early, runs.last().unwrap().as_str()).await;
    let mut listeners = Vec::new();
    for index in 0..LISTENERS {
        // Every second listener subscribes to one run.
        let path = if index % 2 == 0 { "/api/events".to_owned() } else { format!("/api/events?run={}", runs[7]) };
        let mut stream = ask(page, &path).await;
        until(&mut stream, "\r\n\r\n").await;
        listeners.push(stream);
    }
    let before = running.rows_made();
    let note = Some("mine".to_owned());
    running.handle().annotate(RequestId::from_bytes([99; 16]), runs[7].as_str(), None, note).await.unwrap();
    for stream in listeners.iter_mut().chain([&mut early]) {
        until(stream, &format!("event: note\ndata: {{\"run\":\"{}\"}}", runs[7])).await;
    }
    assert_eq!(running.rows_made() - before, 1, "rows created for one change of one run among 30");
    // A listener of one run receives no events of other runs.
    let tags = Some(vec!["best".to_owned()]);
    running.handle().annotate(RequestId::from_bytes([98; 16]), runs[3].as_str(), tags.clone(), None).await.unwrap();
    until(&mut listeners[0], "best").await;
    running.handle().annotate(RequestId::from_bytes([97; 16]), runs[7].as_str(), tags, None).await.unwrap();
    let heard = until(&mut listeners[1], "best").await;
    assert!(heard.contains(runs[7].as_str()) && !heard.contains(runs[3].as_str()), "{heard}");
    drop(listeners);
    drop(early);
    ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_write_on_a_run_in_the_archive_is_told_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let change = |settings: &mut Settings| {
        (settings.policy.keep_ended, settings.policy.tick) = (1, Duration::from_millis(5));
    };
    let (running, page) = coordinator(dir.path(), change).await;
    let mut runs = Vec::new();
    for number in 0..3 {
        let run = submit(&running, number).await;
        running.handle().cancel(RequestId::from_bytes([50 + number; 16]), run.as_str()).await.unwrap();
        runs.push(run);
    }
    let oldest = runs[0].clone();
    let archived = async {
        loop {
            let run = oldest.clone();
            if running.handle().read(move |state| state.archived(&run).is_some()).await.unwrap() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, archived).await.unwrap();
    let mut listener = ask(page, "/api/events").await;
    until(&mut listener, "\r\n\r\n").await;
    let tags = Some(vec!["best".to_owned()]);
    running.handle().annotate(RequestId::from_bytes([99; 16]), oldest.as_str(), tags, None).await.unwrap();
    let heard = until(&mut listener, "\"tags\":[\"best\"]").await;
    assert!(heard.contains("event: run") && heard.contains(&format!("\"run\":\"{oldest}\"")), "{heard}");
    assert!(heard.contains("\"status\":\"cancelled\""), "the whole row: {heard}");
    let note = Some("mine".to_owned());
    running.handle().annotate(RequestId::from_bytes([98; 16]), oldest.as_str(), None, note).await.unwrap();
    until(&mut listener, &format!("event: note\ndata: {{\"run\":\"{oldest}\"}}")).await;
    let mut list = ask(page, "/api/runs?limit=1").await;
    let answer = until(&mut list, "\"runs\"").await;
    assert!(answer.contains("\"older\":2") && answer.contains(runs[2].as_str()), "{answer}");
    let mut list = ask(page, "/api/runs?limit=none").await;
    assert!(until(&mut list, "\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    drop(listener);
    ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_beyond_the_limit_are_refused_in_words_until_one_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (running, page) = coordinator(dir.path(), |settings| settings.limits.page_listeners = 2).await;
    let mut listeners = Vec::new();
    for _ in 0..2 {
        let mut stream = ask(page, "/api/events").await;
        assert!(until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        listeners.push(stream);
    }
    let mut refused = ask(page, "/api/events").await;
    let answer = until(&mut refused, "limits.page_listeners").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("2 browsers receive live events already"),
        "{answer}"
    );
    listeners.pop();
    let admitted = async {
        loop {
            let mut stream = ask(page, "/api/events").await;
            if until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    timeout(DEADLINE, admitted).await.unwrap();
    drop((listeners, refused));
    ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_head_and_a_connection_without_requests_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let change = |settings: &mut Settings| settings.limits.ports.page.greeting = Duration::from_millis(200);
    let (running, page) = coordinator(dir.path(), change).await;
    let mut half = TcpStream::connect(page).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let silent = TcpStream::connect(page).await.unwrap();
    let mut done = ask(page, "/api/runs").await;
    until(&mut done, "[]").await;
    let mut listens = ask(page, "/api/events").await;
    until(&mut listens, "\r\n\r\n").await;
    for mut stream in [half, silent, done] {
        // Ignores earlier bytes. A reset connection counts as closed.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("the connection is closed");
    }
    // The time limit does not apply to a listener, whose request is complete.
    let run = submit(&running, 1).await;
    until(&mut listens, run.as_str()).await;
    drop(listens);
    ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_streamed_to_so_many_browsers_at_a_time() {
    const PLACES: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let (running, page) = coordinator(dir.path(), |_| {}).await;
    let store = BlobStore::existing(&Settings::embedded(dir.path()).store).unwrap();
    let small = store.put(b"\x89PNG\r\n\x1a\n and the rest").unwrap();
    let mut whole = ask(page, &format!("/api/blobs/{}", small.digest)).await;
    let text = until(&mut whole, "and the rest").await.to_lowercase();
    assert!(text.contains("content-type: image/png") && text.contains("content-length: 21"), "{text}");
    let mut missing = ask(page, &format!("/api/blobs/{}", Domain::Blob.digest(b"none"))).await;
    let text = until(&mut missing, "is not in the store").await;
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
    // Larger than the buffers of a connection.
    let path = format!("/api/blobs/{}", store.put(&vec![7; 32 << 20]).unwrap().digest);
    let mut readers = Vec::new();
    for _ in 0..PLACES {
        let mut stream = ask(page, &path).await;
        assert!(until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        readers.push(stream);
    }
    let mut refused = ask(page, &path).await;
    let head = until(&mut refused, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{}", head.lines().next().unwrap_or_default());
    let words = "64 downloads are in progress, which is the maximum: try again";
    let text = if head.contains(words) { head } else { head + &until(&mut refused, "again").await };
    assert!(text.contains(words), "{text}");
    readers.pop();
    let admitted = async { while !until(&mut ask(page, &path).await, "\r\n\r\n").await.starts_with("HTTP/1.1 200") {} };
    timeout(DEADLINE, admitted).await.unwrap();
    drop(readers);
    ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
}
