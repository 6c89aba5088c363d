//! The rank process: trains one process's share of a run. Started by the agent, through `worker rank`.
//!
//! A program of its own, because loading libtorch takes longer than anything else that a start does, and the agent needs
//! none of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lockstep_common::RunId;
use lockstep_worker::rank::{self, Options};

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

fn main() -> ExitCode {
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
