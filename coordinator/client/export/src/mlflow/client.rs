//! Calls to a server of MLflow, repeated while it is away.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::fs::File;

use crate::ExportError;

/// Tries of a call. With the waits between, a server has a quarter of a minute to come back.
const TRIES: u32 = 8;

/// Before the second try; doubled from try to try.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Between tries at most.
const GREATEST_WAIT: Duration = Duration::from_secs(5);

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For the next bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// Characters of an answer that a message may repeat.
const MESSAGE_LENGTH: usize = 500;

/// Which server, and as whom.
#[derive(Clone)]
pub struct MlflowServer {
    /// As `http://127.0.0.1:5000`; a user and password may be in it.
    pub uri: String,
    /// Sent as a bearer's, where the server wants one.
    pub token: Option<String>,
}

impl std::fmt::Debug for MlflowServer {
    /// Without what is secret: an address may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MlflowServer").finish_non_exhaustive()
    }
}

/// What an upload sends.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    File(&'a Path),
    Bytes(&'a [u8]),
}

/// A server to talk to.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(server: MlflowServer) -> Result<Self, ExportError> {
        // Whoever links this crate may have chosen a provider already: then that one serves.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT);
        let base = Url::parse(&server.uri).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = base.ok_or(ExportError::Address { uri: server.uri })?;
        let http = http.build().map_err(|source| unreachable(&base, source))?;
        Ok(Self { http, base, token: server.token })
    }

    /// Posts `body` to `call`, as `runs/log-batch`; again while the server is away, so only what may come twice.
    pub(super) async fn post<T: DeserializeOwned>(&self, call: &str, body: &Value) -> Result<T, ExportError> {
        let mut tries = Tries::default();
        loop {
            match self.post_once(call, body).await {
                Err(error) if tries.again(&error).await => {}
                done => return done,
            }
        }
    }

    /// Posts `body` to `call`, once.
    pub(super) async fn post_once<T: DeserializeOwned>(&self, call: &str, body: &Value) -> Result<T, ExportError> {
        let url = self.url(&["api", "2.0", "mlflow"], call);
        let request = self.request(Method::POST, &url).header("content-type", "application/json");
        parse(&url, &self.send(&url, request.body(body.to_string())).await?)
    }

    /// Asks `call` with `query`, once.
    pub(super) async fn get_once<T: DeserializeOwned>(
        &self,
        call: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ExportError> {
        let mut url = self.url(&["api", "2.0", "mlflow"], call);
        url.query_pairs_mut().extend_pairs(query);
        parse(&url, &self.send(&url, self.request(Method::GET, &url)).await?)
    }

    /// Makes `content` the artifact `path`; again while the server is away.
    pub(super) async fn upload(&self, path: &str, content: Content<'_>) -> Result<(), ExportError> {
        let url = self.url(&["api", "2.0", "mlflow-artifacts", "artifacts"], path);
        let mut tries = Tries::default();
        loop {
            let request = self.request(Method::PUT, &url);
            let request = match content {
                Content::File(path) => request.body(File::open(path).await.map_err(ExportError::io("open", path))?),
                Content::Bytes(bytes) => request.body(bytes.to_vec()),
            };
            match self.send(&url, request).await {
                Err(error) if tries.again(&error).await => {}
                done => return done.map(drop),
            }
        }
    }

    fn url(&self, root: &[&str], path: &str) -> Url {
        let mut url = self.base.clone();
        let mut segments = url.path_segments_mut().expect("addresses of the web have paths");
        segments.pop_if_empty().extend(root).extend(path.split('/'));
        drop(segments);
        url
    }

    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let request = self.http.request(method, url.clone());
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<String, ExportError> {
        let answer = request.send().await.map_err(|source| unreachable(url, source))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|source| unreachable(url, source))?;
        if status.is_success() {
            return Ok(text);
        }
        let said = serde_json::from_str::<Value>(&text).ok();
        let message = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or(&text);
        let message = message.chars().take(MESSAGE_LENGTH).collect();
        Err(ExportError::Refused { url: shown(url), status: status.as_u16(), message })
    }
}

/// The tries of one call.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Waits if `error` may pass, and there are tries left.
    pub(super) async fn again(&mut self, error: &ExportError) -> bool {
        let may_pass = match error {
            ExportError::Unreachable { source, .. } => !source.is_builder(),
            ExportError::Refused { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        };
        self.0 += 1;
        if !may_pass || self.0 >= TRIES {
            return false;
        }
        tokio::time::sleep((FIRST_WAIT * 2_u32.pow(self.0 - 1)).min(GREATEST_WAIT)).await;
        true
    }
}

fn parse<T: DeserializeOwned>(url: &Url, text: &str) -> Result<T, ExportError> {
    serde_json::from_str(text).map_err(|source| ExportError::Answer { url: shown(url), source })
}

fn unreachable(url: &Url, source: reqwest::Error) -> ExportError {
    ExportError::Unreachable { url: shown(url), source: source.without_url() }
}

/// `url` without what is secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Addresses of the web take both.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.into()
}
