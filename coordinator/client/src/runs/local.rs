//! `--local N`: an embedded coordinator and N worker processes, for the length of one job.

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

/// Time that a worker gets between SIGTERM and SIGKILL: it gives its own processes less.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Time that the processes of a run that has ended get to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// A coordinator and its workers.
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
    /// The worker ends when this closes.
    _lifeline: Option<ChildStdin>,
}

impl Local {
    /// Starts them, with everything they write in `dir`, which [`crate::runs::local_dir`] allows.
    pub(crate) async fn start(dir: &Path, workers: u32) -> Result<Self, Failure> {
        let program = worker_program()?;
        let disk = |error: std::io::Error| {
            Failure::new(Exit::Local, format!("cannot use directory `{}`: {error}", dir.display()))
        };
        durable::make_private_dir(dir).map_err(disk)?;
        // A directory in a work tree must not make it dirty.
        durable::write_atomic(&dir.join(".gitignore"), b"*\n").map_err(disk)?;

        let settings = Settings::embedded(dir);
        let running = serve::start(&settings).await.map_err(|error| serve_failure(&error))?;
        let address = running.address().to_string();
        // Whatever an earlier job here left open ended with its workers.
        let handle = running.handle().clone();
        let begun_ms = now_ms();
        handle.clear().await.map_err(|error| Failure::caused(Exit::Local, &error))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let coordinator = tokio::spawn(running.until(async {
            // Dropped without a word, it stops too.
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
        // With all of them there, the job gets as many processes as it can use from the start.
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
            // It ends when this closes, however this process ends.
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is for this process, which then ends the workers in order.
            .process_group(0)
            .kill_on_drop(true);
        if env::var_os("LOCKSTEP_WORKER_SLOTS").is_none() {
            command.env("LOCKSTEP_WORKER_SLOTS", "1");
        }
        let mut child = command.spawn()?;
        // Waiting for a child closes what it still has.
        let lifeline = child.stdin.take();
        Ok(Worker { name: name.to_owned(), log, child, _lifeline: lifeline })
    }

    /// The coordinator's address.
    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Where its coordinator keeps blobs.
    pub(crate) fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// Where everything lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits for what must not happen: the coordinator or a worker ends before the job.
    pub(crate) async fn broken(&mut self) -> Failure {
        let Self { coordinator, workers, .. } = self;
        tokio::select! {
            biased;
            ended = coordinator => match ended {
                Ok(Err(error)) => serve_failure(&error),
                Ok(Ok(())) | Err(_) => Failure::new(Exit::Local, "the embedded coordinator ended too early"),
            },
            (name, log, status) = first_exit(workers) => {
                let tail = tail(&log);
                Failure::new(Exit::Local, format!("worker `{name}` ended too early ({status}):\n{tail}"))
                    .hint(format!("its log is {}", log.display()))
            }
        }
    }

    /// Waits for the job's processes to end by themselves, as they do when all they said is acknowledged.
    pub(crate) async fn drain(&self) {
        // Those that do not are ended with their workers.
        let _ = timeout(DRAIN, self.handle.idle()).await;
    }

    /// Ends the workers, then the coordinator, and waits for all.
    pub(crate) async fn stop(mut self) {
        for worker in &self.workers {
            if let Some(pid) = worker.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for worker in &mut self.workers {
            if timeout(STOP_GRACE, worker.child.wait()).await.is_err() {
                // Gone already, or now.
                let _ = worker.child.kill().await;
            }
        }
        drop(self.stop.take());
        if !self.coordinator.is_finished() {
            // It can only have failed in ending; everything acknowledged is on disk.
            let _ = self.coordinator.await;
        }
    }
}

/// Waits until `count` nodes have joined since `begun_ms`.
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

/// The first worker that ends; never, if there is none.
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

/// The program `worker`: beside this one, or in PATH.
pub(crate) fn worker_program() -> Result<PathBuf, Failure> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join("worker")));
    let in_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    beside.iter().cloned().chain(in_path.map(|dir| dir.join("worker"))).find(|path| path.is_file()).ok_or_else(|| {
        let place = beside.map_or_else(String::new, |path| format!("neither as `{}` nor ", path.display()));
        Failure::new(Exit::Local, format!("the program `worker` was not found, {place}in PATH"))
            .hint("`cargo build --release --workspace --bins` builds both; keep them in one directory")
    })
}
