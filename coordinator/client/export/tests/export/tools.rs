//! The tools, which `scripts/setup.sh --test` installs, and servers of theirs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lockstep_support::{printed, tool};
use serde_json::Value;

/// For a server's first answer: MLflow makes a database first.
pub(crate) const START: Duration = Duration::from_mins(2);

/// What `script` prints, as JSON. Python's JSON has `NaN`; print such numbers as texts.
pub(crate) fn python(script: &str, argument: &Path) -> Value {
    let mut command = Command::new(tool("python3"));
    serde_json::from_str(&printed(command.args(["-c", script]).arg(argument))).unwrap()
}

/// A server, and a client of it.
pub(crate) struct Server {
    server: lockstep_support::Server,
    client: reqwest::Client,
}

impl Server {
    /// A server that serves until this is dropped.
    pub(crate) fn new(server: lockstep_support::Server) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { server, client: reqwest::Client::builder().build().unwrap() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url)
    }

    /// The answer to a GET.
    pub(crate) async fn bytes(&self, path: &str) -> Vec<u8> {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap();
        assert!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        bytes.to_vec()
    }

    /// The answer to a GET, of JSON, if there is one yet.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).ok()
    }

    /// The answer to a POST, of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(self.url(path)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}
