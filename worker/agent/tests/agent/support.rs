//! Agents in the test's process, whose rank processes are `fake_rank`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once};
use std::time::Duration;

use lockstep_agent::{AgentError, AgentOptions, DeviceChoice, DeviceShare, RankCommand};
use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_host::git::Remotes;
use lockstep_rpc::Assignment;
use lockstep_support::{binary, wait_within};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{DEADLINE, Desire, Key};

pub(crate) const JOB: &str = r#"
name = "test"
steps = 10
[model]
kind = "mlp"
hidden = [4]
outputs = 2
[data]
kind = "csv"
path = "x.csv"
target = "y"
[batch]
size = 4
[optimizer]
kind = "sgd"
lr = 0.1
[numerics]
threads = 3
"#;

pub(crate) fn key(generation: u64, process: u32) -> Key {
    ("0123456789".into(), generation, process)
}

pub(crate) fn assignment(key: &Key) -> Assignment {
    let job = parse(JOB, &[]);
    let (run, generation, process) = key.clone();
    Assignment {
        run,
        generation,
        process,
        processes: 1,
        device: "cpu".into(),
        job: job.canonical(),
        ..Default::default()
    }
}

pub(crate) fn with_peers(key: &Key) -> Desire {
    Desire { assignment: assignment(key), peers: vec!["127.0.0.1:1".into()] }
}

pub(crate) fn parse(text: &str, sets: &[String]) -> JobSpec {
    parse_toml(text, sets).unwrap()
}

/// The command of a fake rank process in `mode`: see `examples/fake_rank.rs`.
pub(crate) fn fake_rank(mode: &str) -> RankCommand {
    RankCommand { program: binary("examples/fake_rank"), args: vec![mode.into()] }
}

/// As `fake_rank`, but it ignores SIGTERM.
pub(crate) fn deaf_rank(mode: &str) -> RankCommand {
    let RankCommand { program, args } = fake_rank(mode);
    let script = "trap '' TERM; exec \"$0\" \"$@\"".into();
    let args: Vec<OsString> = ["-c".into(), script, program.into()].into_iter().chain(args).collect();
    RankCommand { program: "/bin/sh".into(), args }
}

pub(crate) fn options(join: String, data_dir: &Path, rank_command: RankCommand) -> AgentOptions {
    AgentOptions {
        join,
        node: "node-a".parse().unwrap(),
        data_dir: data_dir.to_owned(),
        share: DeviceShare::WHOLE,
        devices: DeviceChoice::Cpu,
        slots: NonZeroUsize::new(2).unwrap(),
        rank_command,
        stop_grace: Duration::from_millis(300),
        progress_limit: None,
        log_bytes: 1 << 20,
        log_total_bytes: 1 << 30,
        spool_bytes: 1 << 30,
        log_runs: NonZeroUsize::new(10).unwrap(),
        programs_dir: data_dir.join("programs"),
        programs: NonZeroUsize::new(2).unwrap(),
        nvml_library: None,
        remotes: Remotes { protocols: vec!["file".into()], limit: DEADLINE },
        pass: Vec::new(),
    }
}

/// A running agent.
pub(crate) struct Agent {
    runtime: Runtime,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Agent {
    pub(crate) fn start(options: AgentOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let task = runtime.spawn(lockstep_agent::run(options, shutdown.clone()));
        Self { runtime, shutdown, task }
    }

    /// Stops the agent as Ctrl-C does; its result.
    pub(crate) fn stop(self) -> Result<(), AgentError> {
        self.shutdown.cancel();
        self.end()
    }

    /// Waits until the agent ends by itself; its result.
    pub(crate) fn end(self) -> Result<(), AgentError> {
        let end = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, self.task).await });
        end.expect("the agent ends in time").expect("the agent does not panic")
    }

    /// Ends the agent as kill -9 does: it sends and writes nothing more.
    pub(crate) fn kill(self) {
        self.runtime.shutdown_timeout(DEADLINE);
    }
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    wait_within(DEADLINE, what, || condition().then_some(()));
}

pub(crate) fn spool_dir(data_dir: &Path, key: &Key) -> PathBuf {
    data_dir.join("spool").join(&key.0).join(format!("{}-{}", key.1, key.2))
}

pub(crate) fn log_text(data_dir: &Path, key: &Key) -> String {
    let path = data_dir.join("logs").join(&key.0).join(format!("{}-{}.log", key.1, key.2));
    std::fs::read_to_string(path).unwrap_or_default()
}

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Everything that all agents of this test program have logged since the first call.
pub(crate) fn logged() -> String {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Logged(LOGGED.lock().unwrap())).init());
    String::from_utf8(LOGGED.lock().unwrap().clone()).unwrap()
}

struct Logged(MutexGuard<'static, Vec<u8>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
