//! The command line of a training program, `worker-rank` too.

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

/// Set where the environment of a job has been entered.
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
    /// Trains one process's share of a run; the agent starts it
    #[command(hide = true)]
    Rank(RankArguments),
    /// Computes each operator at level `portable` and compares the bits; `worker --operators` starts it
    #[command(hide = true)]
    Operators,
    /// Writes a TorchScript module with other weights; `coord export --raw-inputs` starts it
    #[command(hide = true)]
    ExportScript {
        module: PathBuf,
        weights: PathBuf,
        to: PathBuf,
        /// JSON; what is written then takes raw inputs
        preprocessing: Option<String>,
    },
    /// Prints the bits of a checkpoint's scores for every sample of its data file; tests compare predictions with them
    #[command(hide = true)]
    Scores {
        /// The checkpoint's manifest
        manifest: PathBuf,
        /// The directory of the store
        store: PathBuf,
        /// Samples computed at once [default: a rank's micro-batch]
        #[arg(long)]
        batch: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
struct RankArguments {
    /// The agent's Unix socket
    #[arg(long)]
    socket: PathBuf,
    /// The run
    #[arg(long)]
    run: RunId,
    /// The run's generation
    #[arg(long)]
    generation: u64,
    /// This process's number
    #[arg(long)]
    process: u32,
    /// Address at which other processes reach this one
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Gradients go over the network also between processes of one machine
    #[arg(long)]
    no_shared_memory: bool,
    /// Seconds for which the last checkpoint is tried again
    #[arg(long, default_value_t = 3600)]
    save_limit_s: u64,
    /// Seconds of silence after which another process is given up
    #[arg(long, default_value_t = 4800)]
    silence_limit_s: u64,
}

/// The `main` of a training program.
pub fn main<P: Program>() -> ExitCode {
    run(&Own::<P>::new())
}

/// Does what the command line says with `source`.
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
            // Nobody is left to hear of a standard error that is closed.
            writeln!(io::stderr(), "error: {}", chain(error.as_ref())).ok();
            ExitCode::FAILURE
        }
    }
}

fn train_share(source: &dyn Source, arguments: RankArguments) -> ExitCode {
    // A filter that does not parse has been refused by the agent already.
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

/// Trains the job at `path` alone.
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

/// Starts this program again in the environment of `job`, unless it is in it: libtorch has read its variables as this program
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

/// In the environment of level `portable`, which libtorch reads as this program is loaded.
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

/// A key that only `coord submit` understands.
#[derive(Debug, thiserror::Error)]
#[error("key `data.rev`: here data is read as it lies in the work tree; `coord submit` takes it as of a revision")]
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
