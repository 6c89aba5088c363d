//! The tools, which `scripts/setup.sh --test` installs, and servers of theirs.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// For a server's first answer: MLflow makes a database first.
const START: Duration = Duration::from_mins(2);

/// A program of the environment that `LOCKSTEP_TEST_TOOLS` names, or else of the one in the cache.
pub(crate) fn tool(name: &str) -> PathBuf {
    let in_cache = || Some(PathBuf::from(std::env::var_os("LOCKSTEP_CACHE")?).join("test-tools"));
    let tools = std::env::var_os("LOCKSTEP_TEST_TOOLS").map(PathBuf::from).or_else(in_cache);
    let program = tools.expect("`. scripts/env.sh` sets LOCKSTEP_CACHE").join("bin").join(name);
    assert!(program.is_file(), "there is no `{}`: `scripts/setup.sh --test` installs it", program.display());
    program
}

/// What `script` prints, as JSON. Python's JSON has `NaN`; print such numbers as texts.
pub(crate) fn python(script: &str, argument: &Path) -> Value {
    let mut command = Command::new(tool("python3"));
    command.args(["-c", script]).arg(argument).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A server, and all that it starts, until this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Without a slash at its end.
    pub(crate) url: String,
    client: reqwest::Client,
}

impl Server {
    /// Starts `command`, which listens on `port`, and waits until it answers `path`.
    pub(crate) async fn start(command: &mut Command, port: u16, log: &Path, path: &str) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let log_file = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log_file.try_clone().unwrap()).stderr(log_file);
        // A group of its own, to end its workers with it.
        let child = command.process_group(0).spawn().unwrap();
        let mut server = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            client: reqwest::Client::builder().build().unwrap(),
        };
        let deadline = Instant::now() + START;
        let url = format!("{}{path}", server.url);
        while !server.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            let log = || std::fs::read_to_string(log).unwrap();
            assert!(server.child.try_wait().unwrap().is_none() && Instant::now() < deadline, "no server: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    /// The answer to a GET.
    pub(crate) async fn bytes(&self, path: &str) -> Vec<u8> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap();
        assert!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        bytes.to_vec()
    }

    /// The answer to a GET, of JSON, if there is one yet.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).ok()
    }

    /// The answer to a POST, of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
