//! What is done when a server of `MLflow` is away, or says no. The server here is one of a few fixed answers.

use std::sync::{Arc, Mutex};

use lockstep_export::{ExportError, Item, Mlflow, MlflowServer, Sink};
use lockstep_support::free_port;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{loss, points, run};

/// Of one run, whose artifacts go to a store of the server's.
const RUN: &str = r#"{"run": {"info": {"run_id": "r", "artifact_uri": "s3://bucket/r"}, "data": {}}}"#;

/// What the server was asked, in order: the last word of the path, and the header of authorization.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server that answers the n-th call of `path` with the n-th of the statuses that are given for it; 0: it hangs up, unanswered.
async fn server(statuses: &'static [(&'static str, &'static [u16])]) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            answer(stream, statuses, &seen).await;
        }
    });
    (url, asked)
}

async fn answer(stream: TcpStream, statuses: &[(&str, &[u16])], asked: &Asked) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let path = line.split(' ').nth(1).unwrap_or("").split('?').next().unwrap_or("").to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.unwrap();
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    let call = path.rsplit('/').next().unwrap_or("").to_owned();
    let before = asked.lock().unwrap().iter().filter(|(other, _)| *other == call).count();
    asked.lock().unwrap().push((call.clone(), authorization));
    let given = statuses.iter().find(|(name, _)| *name == call).and_then(|(_, statuses)| statuses.get(before));
    let body = match &*call {
        _ if given.is_some_and(|&status| status != 200) => r#"{"error_code": "X", "message": "not today"}"#,
        "get-by-name" => r#"{"experiment": {"experiment_id": "1"}}"#,
        "create" => RUN,
        _ => "{}",
    };
    let status = given.copied().unwrap_or(200);
    if status != 0 {
        let answer =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn sink(uri: &str, token: Option<&str>) -> Sink {
    let server = MlflowServer { uri: uri.to_owned(), token: token.map(str::to_owned) };
    Sink::Mlflow(Mlflow::new(server, "e").unwrap())
}

fn calls(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
}

#[tokio::test]
async fn calls_are_repeated_while_the_server_is_away_and_a_run_is_searched_before_it_is_created_again() {
    let (url, asked) = server(&[("create", &[0, 200]), ("log-batch", &[503, 0, 429, 200])]).await;
    let mut sink = sink(&url, Some("secret"));
    sink.begin(&run()).await.unwrap();
    let begin = ["get-by-name", "search", "create"];
    let calls = calls(&asked);
    assert_eq!(calls[..6], [begin, begin].concat());
    assert_eq!(calls[6..11], ["log-batch"; 5], "four for parameters, one for tags: {calls:?}");
    assert!(asked.lock().unwrap().iter().all(|(_, authorization)| authorization.as_deref() == Some("Bearer secret")));
}

#[tokio::test]
async fn what_the_server_refuses_is_said_in_its_words_and_not_repeated() {
    let (url, asked) = server(&[("log-inputs", &[400])]).await;
    let with_password = url.replace("http://", "http://me:secret@");
    let error = sink(&with_password, None).begin(&run()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("400") && said.contains("not today") && !said.contains("secret"), "{said}");
    assert_eq!(calls(&asked).iter().filter(|call| *call == "log-inputs").count(), 1);
    let basic = asked.lock().unwrap()[0].1.clone();
    assert_eq!(basic.as_deref(), Some("Basic bWU6c2VjcmV0"));
}

#[tokio::test]
async fn artifacts_need_a_server_that_passes_them_on() {
    let (url, _) = server(&[]).await;
    let mut sink = sink(&url, None);
    sink.begin(&run()).await.unwrap();
    sink.write(&[Item::Points { key: &loss(), points: &points(0, 3) }]).await.unwrap();
    let text = Item::Text { name: "sample", step: 1, at_ms: 1, text: "" };
    let error = sink.write(&[text]).await.unwrap_err();
    assert!(
        matches!(error, ExportError::NoArtifactProxy { .. }) && error.to_string().contains("s3://bucket/r"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_never_comes_and_an_address_that_is_none_are_told() {
    let error = sink(&format!("http://127.0.0.1:{}", free_port()), None).begin(&run()).await.unwrap_err();
    assert!(matches!(error, ExportError::Unreachable { .. }), "{error}");
    let server = MlflowServer { uri: "127.0.0.1:5000".to_owned(), token: None };
    assert!(matches!(Mlflow::new(server, "e"), Err(ExportError::Address { .. })));
}
