//! `--local N`: an embedded coordinator and N worker processes, for the duration of one job.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lockstep_coordinator::node::{CallError, Handle, now_ms};
use lockstep_coordinator::serve::{self, ServeError};
use lockstep_coordinator::settings::Settings;
use lockstep_core::state::Presence;
use lockstep_host::access::replace_private_file;
use lockstep_host::durable;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cluster::serve::serve_failure;
use crate::terminal::{Exit, Failure, interrupted};

/// Time between SIGTERM and SIGKILL for a worker. A worker gives its own processes less time.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Time in which the processes of an ended run may end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// An embedded coordinator and its workers, which are running.
pub(crate) struct Local {
    dir: PathBuf,
    address: String,
    store: PathBuf,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    coordinator: JoinHandle<Result<(), ServeError>>,
    workers: Vec<Worker>,
}

struct Worker {
    name: String,
    log: PathBuf,
    child: Child,
    /// Standard input of the worker, which ends when this is closed.
    _lifeline: Option<ChildStdin>,
}

impl Local {
    /// Starts a coordinator and `workers` workers, and waits until all have joined. They write to `dir`, which
    /// [`crate::runs::local_dir`] must have checked.
    pub(crate) async fn start(dir: &Path, workers: u32) -> Result<Self, Failure> {
        let program = worker_program()?;
        let disk = |error: std::io::Error| {
            Failure::new(Exit::Local, format!("cannot use directory `{}`: {error}", dir.display()))
        };
        durable::make_private_dir(dir).map_err(disk)?;
        // Otherwise the directory would make a work tree around it dirty.
        durable::write_atomic(&dir.join(".gitignore"), b"*\n").map_err(disk)?;

        let settings = Settings::embedded(dir);
        let running = serve::start(&settings).await.map_err(|error| serve_failure(&error))?;
        let address = running.address().to_string();
        // Runs that an earlier job left unfinished here have lost their workers: they are cancelled.
        let handle = running.handle().clone();
        let begun_ms = now_ms();
        handle.clear().await.map_err(|error| Failure::caused(Exit::Local, &error))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let coordinator = tokio::spawn(running.until(async {
            // An error means that the sender was dropped, which stops the coordinator, too.
            let _ = stopped.await;
        }));
        let mut local = Self {
            dir: dir.to_owned(),
            address,
            store: settings.store,
            handle: handle.clone(),
            stop: Some(stop),
            coordinator,
            workers: Vec::new(),
        };
        for number in 1..=workers {
            match local.spawn(&program, &format!("local-{number}"), &format!("{number}/{workers}")) {
                Ok(worker) => local.workers.push(worker),
                Err(error) => {
                    local.stop().await;
                    let words = format!("cannot start `{}`: {error}", program.display());
                    return Err(Failure::new(Exit::Local, words));
                }
            }
        }
        // With all workers present, the first generation already has as many processes as the job can use.
        let joined = tokio::select! {
            biased;
            failure = local.broken() => Err(failure),
            () = interrupted() => Err(Failure::new(Exit::Interrupted, "interrupted before the job was submitted")),
            joined = all_joined(&handle, workers as usize, begun_ms) => {
                joined.map_err(|error| Failure::caused(Exit::Local, &error))
            }
        };
        match joined {
            Ok(()) => Ok(local),
            Err(failure) => {
                local.stop().await;
                Err(failure)
            }
        }
    }

    fn spawn(&self, program: &Path, name: &str, share: &str) -> std::io::Result<Worker> {
        let log = self.dir.join(format!("{name}.log"));
        let file = replace_private_file(&log)?;
        let mut command = Command::new(program);
        command
            .args(["--join", &self.address, "--name", name, "--share", share])
            .arg("--data-dir")
            .arg(self.dir.join(name))
            // So the worker ends even if this process is killed.
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C must reach this process alone, which then stops the workers.
            .process_group(0)
            .kill_on_drop(true);
        if env::var_os("LOCKSTEP_WORKER_SLOTS").is_none() {
            command.env("LOCKSTEP_WORKER_SLOTS", "1");
        }
        let mut child = command.spawn()?;
        // `Child::wait` would close a standard input that the child still owns.
        let lifeline = child.stdin.take();
        Ok(Worker { name: name.to_owned(), log, child, _lifeline: lifeline })
    }

    /// The address of the coordinator, `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// The directory of the coordinator's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// The directory with all state and logs.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until the coordinator or a worker ends before the job does, and returns why.
    pub(crate) async fn broken(&mut self) -> Failure {
        let Self { coordinator, workers, .. } = self;
        tokio::select! {
            biased;
            ended = coordinator => match ended {
                Ok(Err(error)) => serve_failure(&error),
                Ok(Ok(())) | Err(_) => Failure::new(Exit::Local, "the embedded coordinator ended before the job"),
            },
            (name, log, status) = first_exit(workers) => {
                let tail = tail(&log);
                Failure::new(Exit::Local, format!("worker `{name}` ended before the job ({status}):\n{tail}"))
                    .hint(format!("read its whole log in `{}`", log.display()))
            }
        }
    }

    /// Waits until the processes of the run have ended, for at most 5 s. They end once all their reports are acknowledged.
    pub(crate) async fn drain(&self) {
        // Processes that take longer are stopped with their workers.
        let _ = timeout(DRAIN, self.handle.idle()).await;
    }

    /// Stops the workers, then the coordinator, and waits until all have ended.
    pub(crate) async fn stop(mut self) {
        for worker in &self.workers {
            if let Some(pid) = worker.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
                // Fails if the worker has already ended.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for worker in &mut self.workers {
            if timeout(STOP_GRACE, worker.child.wait()).await.is_err() {
                // Fails only if the worker has already ended.
                let _ = worker.child.kill().await;
            }
        }
        drop(self.stop.take());
        if !self.coordinator.is_finished() {
            // An error can only come from its shutdown, when everything acknowledged is on disk.
            let _ = self.coordinator.await;
        }
    }
}

/// Waits until `count` nodes have joined since `begun_ms`, in milliseconds since the Unix epoch.
async fn all_joined(handle: &Handle, count: usize, begun_ms: u64) -> Result<(), CallError> {
    let mut changes = handle.changes();
    loop {
        let joined = handle
            .read(move |state| {
                state.nodes().filter(|node| node.presence == Presence::Alive && node.changed_at_ms >= begun_ms).count()
            })
            .await?;
        if joined >= count {
            return Ok(());
        }
        changes.next().await?;
    }
}

/// Name, log and exit status of the first worker that ends. Without workers it waits forever.
async fn first_exit(workers: &mut [Worker]) -> (String, PathBuf, String) {
    let mut set: Vec<_> = workers
        .iter_mut()
        .map(|worker| {
            let (name, log) = (worker.name.clone(), worker.log.clone());
            Box::pin(async move { (name, log, worker.child.wait().await) })
        })
        .collect();
    std::future::poll_fn(move |context| {
        for future in &mut set {
            if let std::task::Poll::Ready((name, log, status)) = future.as_mut().poll(context) {
                let words = status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string());
                return std::task::Poll::Ready((name, log, words));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The path of the program `worker`: beside `coord`, or else in `PATH`.
pub(crate) fn worker_program() -> Result<PathBuf, Failure> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join("worker")));
    let in_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    beside.iter().cloned().chain(in_path.map(|dir| dir.join("worker"))).find(|path| path.is_file()).ok_or_else(|| {
        let place = beside.map_or_else(String::new, |path| format!(", neither as `{}` nor", path.display()));
        Failure::new(Exit::Local, format!("the program `worker` was not found{place} in PATH"))
            .hint("build both with `cargo build --release --workspace --bins`, and keep them in one directory")
    })
}
