//! `worker --join ADDR`: the agent of a node.
//!
//! This program does not link libtorch, so it starts fast and needs little memory. Rank processes run the program `worker-rank`, which
//! must be in the same directory.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use lockstep_agent::{AgentError, AgentOptions, Config, OptionsError, environment};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// File name of the program that rank processes run, in the directory of this program.
const RANK_PROGRAM: &str = "worker-rank";

/// The default of `--save-limit-s` in rank processes. The option is passed only if the value differs.
const SAVE_LIMIT_S: u64 = 3600;

/// The default of `--silence-limit-s` in rank processes. The option is passed only if the value differs.
const SILENCE_LIMIT_S: u64 = 4800;

/// Silence limit, in seconds, if `progress_limit_s = 0`: then the agent does not look for hanging processes.
const UNWATCHED_SILENCE_S: u64 = 86_400;

/// Exit code of a worker that the coordinator rejected.
const REFUSED: u8 = 3;

/// Threads of the agent's runtime: one can block on the disk while the other serves requests.
const RUNTIME_THREADS: usize = 2;

/// Offer the devices of this node to a coordinator, and run the processes that it places here.
///
/// Processes continue to train while the coordinator cannot be reached; the worker reconnects by itself. Ctrl-C or SIGTERM stops
/// the processes, then the worker.
#[derive(Debug, Parser)]
#[command(
    name = "worker",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Each option is also a key of the configuration file (--config; --name is `node`) and an environment variable such as \
                  LOCKSTEP_WORKER_DATA_DIR. `configs/worker.toml` documents all keys.\n\n\
                  Exit codes: 0 stopped on request, 1 cannot run on this machine, 2 wrong arguments, 3 rejected by the coordinator (the \
                  node does not share the store, or the versions differ)."
)]
struct Arguments {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// Address of the coordinator, HOST:PORT [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    join: Option<String>,
    /// Name of this node [default: the host name]
    #[arg(long, alias = "node", value_name = "NODE")]
    name: Option<String>,
    /// Keep logs, and reports for the coordinator, in this directory [default: below ~/.local/state]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Offer these devices [default: auto: cuda if the node has a CUDA device, else cpu]
    #[arg(long, alias = "device", value_enum)]
    devices: Option<Devices>,
    /// Offer the I-th of N shares of the CUDA devices, for N workers on one machine [default: 1/1, all devices]
    #[arg(long, value_name = "I/N")]
    share: Option<String>,
    /// Number of processes on the CPU [default: one for each core]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// IP address for the exchange of gradients with other nodes, which is not encrypted [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    bind: Option<IpAddr>,
    /// Stop, as on SIGTERM, when standard input closes
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// Read this configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Compute each operator at level `portable`, compare its bits with stored ones, and end; exit code 1 if one differs
    #[arg(long)]
    operators: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Devices {
    Auto,
    Cpu,
    Cuda,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// Becomes a rank process; the agent starts it.
    #[command(hide = true)]
    Rank {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Why the worker cannot run.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Config(#[from] lockstep_host::config::ConfigError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("{0}")]
    Logging(String),
    #[error("cannot start the worker's runtime or its signal handlers")]
    Runtime(#[source] io::Error),
    #[error("cannot restart the worker with only the environment variables that programs may read")]
    Anew(#[source] io::Error),
    #[error("cannot start `{}`", program.display())]
    Rank { program: PathBuf, source: io::Error },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.hidden {
        Some(Hidden::Rank { arguments }) => Err(become_rank("rank", &arguments)),
        None if arguments.operators => Err(become_rank("operators", &[])),
        None => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            match error {
                WorkerError::Agent(AgentError::Refused(_)) => ExitCode::from(REFUSED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), WorkerError> {
    lockstep_host::logging::init("info").map_err(WorkerError::Logging)?;
    let config = Config::load(arguments.config.as_deref(), &flags(arguments))?.value;
    if environment::has_more(&config.environment.pass) {
        // Programs of the same user can read this process's environment in `/proc`, so it restarts without these variables.
        let own = std::env::current_exe().map_err(WorkerError::Anew)?;
        let mut anew = Command::new(own);
        anew.args(std::env::args_os().skip(1)).env_clear().envs(environment::kept(&config.environment.pass));
        return Err(WorkerError::Anew(anew.exec()));
    }
    let mut options = AgentOptions::from_config(&config)?;
    options.rank_command.args.extend(["--bind".into(), config.bind.to_string().into()]);
    if !config.shared_memory {
        options.rank_command.args.push("--no-shared-memory".into());
    }
    if config.save_limit_s != SAVE_LIMIT_S {
        // Programs that were built with an older library do not have this option.
        options.rank_command.args.extend(["--save-limit-s".into(), config.save_limit_s.to_string().into()]);
    }
    let silence_limit_s = silence_limit_s(&config);
    if silence_limit_s != SILENCE_LIMIT_S {
        options.rank_command.args.extend(["--silence-limit-s".into(), silence_limit_s.to_string().into()]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .map_err(WorkerError::Runtime)?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt()).map_err(WorkerError::Runtime)?,
            signal(SignalKind::terminate()).map_err(WorkerError::Runtime)?,
        );
        // With a handler for SIGXFSZ, a write beyond the limit on file sizes (`ulimit -f`) returns an error, as on a full disk, and does
        // not end the process.
        let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
        let ending = shutdown.clone();
        let closed = stdin_closed(arguments.until_stdin_closes);
        tokio::spawn(async move {
            tokio::select! {
                () = closed => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            ending.cancel();
        });
        Ok(lockstep_agent::run(options, shutdown).await?)
    })
}

/// Seconds of silence after which a process counts a peer as lost. Longer than a peer may wait for a slow store, and longer than the
/// peer's agent waits before it stops a hanging process.
fn silence_limit_s(config: &Config) -> u64 {
    match config.progress_limit_s {
        0 => UNWATCHED_SILENCE_S,
        limit => (2 * limit).saturating_add(config.save_limit_s),
    }
}

/// Returns when standard input has closed; never returns if it is not `watched`.
async fn stdin_closed(watched: bool) {
    if !watched {
        return std::future::pending().await;
    }
    // A separate thread, because a blocking read cannot be cancelled and must not delay the end of the process.
    let (closed, seen) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // A read error counts as closed.
        io::copy(&mut io::stdin().lock(), &mut io::sink()).ok();
        closed.send(()).ok();
    });
    seen.await.ok();
}

/// The options of the command line, as keys of the configuration.
fn flags(arguments: &Arguments) -> Vec<(&'static str, toml::Value)> {
    let text = |text: &str| toml::Value::String(text.to_owned());
    let devices = arguments.devices.and_then(|devices| Some(text(devices.to_possible_value()?.get_name())));
    [
        ("join", arguments.join.as_deref().map(text)),
        ("node", arguments.name.as_deref().map(text)),
        ("data_dir", arguments.data_dir.as_ref().map(|dir| text(&dir.to_string_lossy()))),
        ("bind", arguments.bind.map(|address| text(&address.to_string()))),
        ("devices", devices),
        ("share", arguments.share.as_deref().map(text)),
        ("slots", arguments.slots.map(|slots| toml::Value::Integer(slots.into()))),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

/// Replaces this process by the rank program with `command`, and returns only if that fails.
fn become_rank(command: &str, arguments: &[OsString]) -> WorkerError {
    let program = match std::env::current_exe() {
        Ok(own) => own.with_file_name(RANK_PROGRAM),
        Err(source) => return WorkerError::Rank { program: RANK_PROGRAM.into(), source },
    };
    let source = Command::new(&program).arg(command).args(arguments).exec();
    WorkerError::Rank { program, source }
}

/// The error and its causes, on standard error.
fn say(error: &WorkerError) {
    // If standard error is closed, the message is lost.
    writeln!(io::stderr(), "error: {}", lockstep_common::chain(error)).ok();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn documented_options_are_those_of_worker() {
        lockstep_support::cli_is_current(Arguments::command());
    }
}
