//! One operating-system process: started in a process group of its own, its output captured, stopped with a grace period.
//!
//! The task that waits for the process sends all signals, so no signal goes to a process id that the kernel has reused.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::net::unix::pipe;
use tokio::process::{Child as Process, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::capture::{LINGER, copy};
use super::exit::Exit;
use super::key::ProcessKey;
use super::output::LogWriter;
use crate::environment::Environment;
use crate::event::Event;
use crate::options::RankCommand;

/// How long a hung process may take to write its stack: it looks up symbols in libtorch.
const STACK_TIME: Duration = Duration::from_secs(5);

/// A running process. Dropping this stops it.
#[derive(Debug)]
pub(crate) struct Child {
    hung: CancellationToken,
    stop: CancellationToken,
    retire: CancellationToken,
    _over: DropGuard,
}

/// Everything that a process is started with.
pub(crate) struct Start<'a> {
    pub(crate) key: &'a ProcessKey,
    pub(crate) command: &'a RankCommand,
    /// Its working directory; `None`: that of the agent.
    pub(crate) directory: Option<&'a Path>,
    pub(crate) socket: &'a OsStr,
    /// Its standard input, an empty lock file; `None`: `/dev/null`.
    pub(crate) input: Option<File>,
    /// Environment variables that it inherits from the agent.
    pub(crate) given: &'a Environment,
    /// Environment variables that are set in addition.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) grace: Duration,
    pub(crate) log: LogWriter,
    pub(crate) events: mpsc::Sender<Event>,
    /// Tracks the tasks of processes, which the agent waits for at its end.
    pub(crate) tasks: &'a TaskTracker,
}

impl Child {
    /// Starts the process. Its end is sent to `events`, and so is the end of its linger.
    pub(crate) fn spawn(start: Start<'_>) -> io::Result<Self> {
        let Start { key, command, directory, socket, input, given, environment, grace, log, events, tasks } = start;
        // One pipe for both streams keeps their order.
        let (read, write) = io::pipe()?;
        let output = pipe::Receiver::from_owned_fd(read.into())?;
        let mut process = Command::new(&command.program);
        given.apply(&mut process);
        if let Some(directory) = directory {
            process.current_dir(directory);
        }
        let process = process
            .args(&command.args)
            .arg("--socket")
            .arg(socket)
            .args(["--run", key.run.as_str()])
            .args(["--generation", &key.generation.to_string()])
            .args(["--process", &key.process.to_string()])
            .envs(environment)
            // Device numbers are NVML's, which hides no device. The agent offers only devices that were visible to it.
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            .env_remove("CUDA_VISIBLE_DEVICES")
            .stdin(input.map_or_else(Stdio::null, Stdio::from))
            .stdout(write.try_clone()?)
            .stderr(write)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        info!("started {key} as pid {}", process.id().unwrap_or_default());
        let [hung, stop, retire, over] = std::array::from_fn(|_| CancellationToken::new());
        let capture = tasks.spawn(capture(output, log));
        let watch = Watch {
            key: key.clone(),
            process,
            grace,
            hung: hung.clone(),
            stop: stop.clone(),
            retire: retire.clone(),
            over: over.clone(),
        };
        tasks.spawn(watch.run(capture, events));
        Ok(Self { hung, stop, retire, _over: over.drop_guard() })
    }

    /// Stops a hung process: asks for its stack with SIGUSR2 first, then sends SIGTERM.
    pub(crate) fn end_hung(&self) {
        self.hung.cancel();
    }

    /// Sends SIGTERM now, and SIGKILL after the grace period.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Expects the process to end by itself, and stops it if it still runs after the grace period.
    pub(crate) fn retire(&self) {
        self.retire.cancel();
    }
}

#[cfg(test)]
impl Child {
    /// A child without a process, and the signals that it gets: to stop, and to end by itself.
    pub(crate) fn without_process() -> (Self, [CancellationToken; 2]) {
        let [hung, stop, retire, over] = std::array::from_fn(|_| CancellationToken::new());
        let asked = [stop.clone(), retire.clone()];
        (Self { hung, stop, retire, _over: over.drop_guard() }, asked)
    }
}

struct Watch {
    key: ProcessKey,
    process: Process,
    grace: Duration,
    hung: CancellationToken,
    stop: CancellationToken,
    retire: CancellationToken,
    /// The [`Child`] was dropped: nobody waits for events of the process.
    over: CancellationToken,
}

impl Watch {
    async fn run(mut self, mut capture: JoinHandle<LogWriter>, events: mpsc::Sender<Event>) {
        let code = match self.wait().await {
            Ok(status) => exit_code(status),
            // Cannot happen on a working system: the process is our child. Its end must be reported all the same.
            Err(error) => {
                info!("cannot wait for {}: {error}", self.key);
                self.signal(Signal::KILL);
                128 + Signal::KILL.as_raw()
            }
        };
        let output = match timeout(LINGER, &mut capture).await {
            Ok(Ok(log)) => log.last_lines(),
            _ => String::new(),
        };
        info!("{} ended with code {code}", self.key);
        let key = self.key;
        // The supervisor takes events as long as it has processes; a closed channel means that the agent ends.
        if events.send(Event::Ended { key: key.clone(), exit: Exit { code, output } }).await.is_ok() {
            tokio::select! {
                biased; // A dropped child needs no event.
                () = self.over.cancelled() => {}
                () = sleep(LINGER) => { events.send(Event::LingerExpired { key }).await.ok(); }
            }
        }
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        tokio::select! {
            biased; // A process that has ended gets no signal.
            status = self.process.wait() => return status,
            () = self.stop.cancelled() => {}
            () = self.hung.cancelled() => {
                self.ask_where_it_stands();
                if let Ok(status) = timeout(STACK_TIME, self.process.wait()).await {
                    return status;
                }
            }
            () = self.over.cancelled() => {}
            () = retired(&self.retire, self.grace) => {}
        }
        self.signal(Signal::TERM);
        if let Ok(status) = timeout(self.grace, self.process.wait()).await {
            return status;
        }
        info!("{} did not end within {} ms of SIGTERM; sending SIGKILL", self.key, self.grace.as_millis());
        self.signal(Signal::KILL);
        self.process.wait().await
    }

    /// Logs the kernel's view of all threads, and asks the process to write the stack of its main thread to its output.
    fn ask_where_it_stands(&self) {
        let Some(pid) = self.process.id() else { return };
        info!("{} has these threads: {}", self.key, threads(pid).unwrap_or_else(|error| error.to_string()));
        let signalled = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::USR2));
        if let Some(Err(error)) = signalled {
            debug!("cannot signal {}: {error}", self.key);
        }
    }

    /// Signals the process group, unless the process has been waited for.
    fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid
            && let Err(error) = kill_process_group(pid, signal)
        {
            debug!("cannot signal {}: {error}", self.key);
        }
    }
}

/// Name, state letter and kernel function of each thread of a process, from `/proc`.
fn threads(pid: u32) -> io::Result<String> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        // Empty if the thread has ended meanwhile.
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
        let stat = read("stat");
        let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| &rest[..rest.len().min(1)]);
        threads.push(format!("{} {state} {}", read("comm"), read("wchan")));
    }
    Ok(threads.join(", "))
}

async fn retired(retire: &CancellationToken, grace: Duration) {
    retire.cancelled().await;
    sleep(grace).await;
}

/// As [`copy`]; returns the log at the end.
async fn capture(mut output: pipe::Receiver, mut log: LogWriter) -> LogWriter {
    copy(&mut output, &mut log).await;
    log
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(-1)
}
