//! The command line of training programs, including `worker-rank`.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;
use std::{env, thread};

use clap::{Parser, Subcommand};
use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_common::manifest::Manifest;
use lockstep_common::preprocessing::Preprocessing;
use lockstep_common::{RunId, chain, numerics};
use lockstep_rpc::ReportBlock;
use lockstep_tch_ext::exit::survive_file_size_limit;

use super::options::Options;
use super::{local, rank, scores};
use crate::evidence::operators;
use crate::observe::{Message, Outbox};
use crate::program::{Failure, Own, Program, Source, export_script};

/// Environment variable that is set after the program has restarted in the environment of its job.
const PREPARED: &str = "LOCKSTEP_PREPARED";

/// A training program for Lockstep; `coord submit JOB` trains with it.
#[derive(Debug, Parser)]
#[command(version = env!("CARGO_PKG_VERSION"))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a job on the CPU in one process, to try it out: same bits, no checkpoints
    Train {
        /// Job file
        job: PathBuf,
        /// Override a key of the job, for example `steps=10`; repeatable
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Train the ranks of one process of a run; the agent starts it
    #[command(hide = true)]
    Rank(RankArguments),
    /// Compute each operator at level `portable` and compare the bits; `worker --operators` starts it
    #[command(hide = true)]
    Operators,
    /// Write a TorchScript module with the weights of a checkpoint; `coord export --raw-inputs` starts it
    #[command(hide = true)]
    ExportScript {
        module: PathBuf,
        weights: PathBuf,
        to: PathBuf,
        /// JSON of the preprocessing; with it the written module takes raw inputs
        preprocessing: Option<String>,
    },
    /// Print the bits of a checkpoint's scores for every sample of its data file; tests compare predictions with them
    #[command(hide = true)]
    Scores {
        /// File with the checkpoint's manifest
        manifest: PathBuf,
        /// Directory of the store
        store: PathBuf,
        /// Number of samples in a forward pass [default: a rank's micro-batch]
        #[arg(long)]
        batch: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
struct RankArguments {
    /// Path of the agent's Unix socket
    #[arg(long)]
    socket: PathBuf,
    /// Id of the run
    #[arg(long)]
    run: RunId,
    /// Generation of the run
    #[arg(long)]
    generation: u64,
    /// Process index, from 0
    #[arg(long)]
    process: u32,
    /// IP address at which other processes reach this one
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Exchange gradients through the network, also between processes of one machine
    #[arg(long)]
    no_shared_memory: bool,
    /// Seconds during which a failed last checkpoint is retried
    #[arg(long, default_value_t = 3600)]
    save_limit_s: u64,
    /// Seconds of silence after which a peer counts as lost
    #[arg(long, default_value_t = 4800)]
    silence_limit_s: u64,
}

/// The `main` function of a training program: parses the command line, and trains `P` as an agent or a person asks.
///
/// Returns the exit code of the process.
pub fn main<P: Program>() -> ExitCode {
    run(&Own::<P>::new())
}

/// Runs the command of the command line with `source`.
pub(crate) fn run(source: &dyn Source) -> ExitCode {
    survive_file_size_limit();
    let done = match Arguments::parse().command {
        Command::Rank(arguments) => return train_share(source, arguments),
        Command::Train { job, set } => train(source, &job, &set),
        Command::ExportScript { module, weights, to, preprocessing } => {
            export(&module, &weights, &to, preprocessing.as_deref())
        }
        Command::Scores { manifest, store, batch } => print_scores(source, &manifest, &store, batch),
        Command::Operators => compare_operators(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, the message is lost.
            writeln!(io::stderr(), "error: {}", chain(error.as_ref())).ok();
            ExitCode::FAILURE
        }
    }
}

fn train_share(source: &dyn Source, arguments: RankArguments) -> ExitCode {
    // The agent has already rejected a filter that does not parse.
    lockstep_host::logging::init("info").ok();
    rank::warn_if_reachable(arguments.bind);
    let options = Options {
        socket: arguments.socket,
        run: arguments.run,
        generation: arguments.generation,
        process: arguments.process,
        bind: arguments.bind,
        shared_memory: !arguments.no_shared_memory,
        save_limit: Duration::from_secs(arguments.save_limit_s),
        silence_limit: Duration::from_secs(arguments.silence_limit_s),
    };
    rank::run(source, &options)
}

/// Trains the job at `path` in this process, without agent and checkpoints.
fn train(source: &dyn Source, path: &Path, sets: &[String]) -> Result<(), Failure> {
    let named = |error: &dyn std::error::Error| format!("job file `{}`: {}", path.display(), chain(error));
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    let job = parse_toml(&text, sets).map_err(|error| named(&error))?;
    if job.data.revision().is_some() {
        return Err(named(&Unsupported).into());
    }
    prepare(&job)?;
    let base_dir = std::path::absolute(path)?.parent().unwrap_or(Path::new("/")).to_owned();
    let outbox = Outbox::default();
    let reports = outbox.clone();
    let printing = thread::spawn(move || -> io::Result<()> {
        while let Some(message) = reports.pop() {
            if let Message::Block(block) = message {
                print(&block, &mut io::stdout().lock())?;
            }
        }
        Ok(())
    });
    let finished = local::train(source, &job, &base_dir, None, None, None, &outbox);
    outbox.close();
    printing.join().map_err(|_| "printing panicked")??;
    let finished = finished?;
    writeln!(io::stdout(), "final state {} after {} steps", finished.state, finished.step)?;
    Ok(())
}

/// Restarts this program in the environment of `job`, unless that has been done: libtorch read its environment variables when this program
/// was loaded.
fn prepare(job: &JobSpec) -> Result<(), Failure> {
    if env::var_os(PREPARED).is_some() {
        return Ok(());
    }
    let mut again = process::Command::new(env::current_exe()?);
    again.args(env::args_os().skip(1)).envs(numerics::environment(job)).env(PREPARED, "1");
    Err(again.exec().into())
}

fn export(module: &Path, weights: &Path, to: &Path, preprocessing: Option<&str>) -> Result<(), Failure> {
    let preprocessing: Option<Preprocessing> = preprocessing.map(serde_json::from_str).transpose()?;
    Ok(export_script(module, weights, to, preprocessing.as_ref())?)
}

fn print_scores(source: &dyn Source, manifest: &Path, store: &Path, batch: Option<u64>) -> Result<(), Failure> {
    let manifest = Manifest::decode(&std::fs::read(manifest)?)?;
    let job = JobSpec::from_canonical(manifest.job_text.as_bytes())?;
    prepare(&job)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    scores::write(source, &manifest, &job, store, batch, &mut out)?;
    Ok(out.flush()?)
}

/// Compares the operators in the environment of level `portable`. Restarts the program for it, because libtorch reads the environment when
/// the program is loaded.
fn compare_operators() -> Result<(), Failure> {
    if env::var_os(PREPARED).is_none() {
        let mut again = process::Command::new(env::current_exe()?);
        again.args(env::args_os().skip(1)).env(PREPARED, "1");
        for (name, value) in operators::environment() {
            match value {
                Some(value) => again.env(name, value),
                None => again.env_remove(name),
            };
        }
        return Err(again.exec().into());
    }
    Ok(operators::compare(&mut io::stdout().lock())?)
}

/// A key that only `coord submit` supports.
#[derive(Debug, thiserror::Error)]
#[error("key `data.rev`: `train` reads the data of the work tree only: remove the key, or use `coord submit`")]
struct Unsupported;

fn print(block: &ReportBlock, out: &mut dyn Write) -> io::Result<()> {
    if let Some(step) = block.steps.last() {
        writeln!(out, "step {}: loss {:.6}", step.step, f64::from_bits(step.loss))?;
    }
    for eval in &block.evals {
        write!(out, "step {}: evaluation loss {:.6}", eval.step, eval.loss)?;
        let accuracy = eval.accuracy.map(|value| ("accuracy".to_owned(), value));
        for (name, value) in accuracy.into_iter().chain(eval.metrics.clone()) {
            write!(out, ", {name} {value:.6}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
