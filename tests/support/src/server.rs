//! Servers of other tools on loopback.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::http::try_http;
use crate::process::PAUSE;
use crate::{Process, free_port, tool};

/// A server with the programs that it starts; all are killed when the value is dropped.
#[derive(Debug)]
pub struct Server {
    /// The server's process, which leads a process group.
    pub process: Process,
    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub url: String,
}

impl Server {
    /// Starts `command`, which listens on `port`, and waits until it answers `path` with a status of 2xx.
    ///
    /// # Panics
    /// If it does not answer within `limit`, or ends; the panic message contains its output.
    pub fn start(command: &mut Command, port: u16, path: &str, limit: Duration) -> Self {
        let (mut process, deadline) = (Process::start_group(command), Instant::now() + limit);
        let address = format!("127.0.0.1:{port}");
        while !try_http(&address, "GET", path, "", limit).is_ok_and(|(status, _)| (200..300).contains(&status)) {
            let is_alive = process.exit_code().is_none() && Instant::now() < deadline;
            assert!(is_alive, "no answer from `{address}{path}` within {limit:?}:\n{}", process.output());
            thread::sleep(PAUSE);
        }
        Self { process, url: format!("http://{address}") }
    }

    /// Starts an `MLflow` server with its files in `dir`.
    pub fn mlflow(dir: &Path, limit: Duration) -> Self {
        let (program, port) = (tool("mlflow"), free_port());
        let mut command = Command::new(&program);
        command.current_dir(dir).args(["server", "--host=127.0.0.1", "--workers=1", &format!("--port={port}")]);
        command.arg(format!("--backend-store-uri=sqlite:///{}", dir.join("mlflow.db").display()));
        command.arg("--artifacts-destination").arg(dir.join("artifacts"));
        command.env("MLFLOW_DISABLE_TELEMETRY", "true").env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false");
        // It starts other programs from its own folder.
        let (paths, beside) = (env::var_os("PATH").unwrap_or_default(), program.parent().map(Path::to_owned));
        let paths = env::join_paths(beside.into_iter().chain(env::split_paths(&paths)));
        Self::start(command.env("PATH", paths.expect("no path has a colon")), port, "/health", limit)
    }
}
