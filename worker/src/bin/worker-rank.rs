//! The rank process: trains one process's share of a run. Started by the agent, through `worker rank`.
//!
//! A program of its own, because loading libtorch takes longer than anything else that a start does, and the agent needs
//! none of it.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lockstep_common::RunId;
use lockstep_worker::rank::{self, Options};
use lockstep_worker::script_export::export_script;

/// Trains one process's share of a run. The agent starts it: see `worker --help`.
#[derive(Debug, Parser)]
#[command(name = "worker-rank", version)]
struct Arguments {
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
}

/// The first argument of another use: `export-script MODULE WEIGHTS TO`.
const EXPORT_SCRIPT: &str = "export-script";

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == EXPORT_SCRIPT) {
        return export(&words.map(PathBuf::from).collect::<Vec<_>>());
    }
    let arguments = Arguments::parse();
    // A filter that does not parse has been refused by the agent already.
    lockstep_host::logging::init("info").ok();
    rank::warn_if_reachable(arguments.bind);
    rank::run(&Options {
        socket: arguments.socket,
        run: arguments.run,
        generation: arguments.generation,
        process: arguments.process,
        bind: arguments.bind,
        shared_memory: !arguments.no_shared_memory,
    })
}

fn export(paths: &[PathBuf]) -> ExitCode {
    let said = match paths {
        [module, weights, to] => export_script(module, weights, to).map_err(|error| error.to_string()),
        _ => Err(format!("expected {EXPORT_SCRIPT} MODULE WEIGHTS TO")),
    };
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear of a standard error that is closed.
            writeln!(std::io::stderr(), "{error}").ok();
            ExitCode::FAILURE
        }
    }
}
