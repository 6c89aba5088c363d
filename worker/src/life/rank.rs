//! A rank process from its first word to its last: one state after the other, each in a file of its own.
//!
//! ```text
//! hello ─> assign ─> loaded ─ ready ─> start ─> joined ─> training ─> ended ─ finished ─> drained ─> exit 0
//! ```

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lockstep_common::RunId;
use lockstep_rpc::ProcessHello;
use lockstep_tch_ext::stacks;
use tracing::{error, warn};

use super::agent::AgentConnection;
use super::ended::{Ended, Stop};
use super::joined::Joined;
use super::loaded::Loaded;
use super::training::Training;
use crate::program::Source;
use crate::step::Finished;

/// What the agent starts a process with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Which run.
    pub run: RunId,
    /// Which of its generations.
    pub generation: u64,
    /// Which of its processes.
    pub process: u32,
    /// Where the exchange listens.
    pub bind: IpAddr,
    /// Whether it may share memory with processes on the same machine.
    pub shared_memory: bool,
    /// How long the last checkpoint is tried again.
    pub save_limit: Duration,
    /// Silence after which a peer is given up. One that dies is noticed at once, and one that hangs by its agent: this is for a network
    /// that is cut, and longer than a peer may wait for a slow store.
    pub silence_limit: Duration,
}

/// Lives a rank process's life, training with `source`.
pub fn run(source: &dyn Source, options: &Options) -> ExitCode {
    stacks::write_on_signal();
    match AgentConnection::connect(&options.socket, hello(options)) {
        Ok(agent) => Ended(live(source, options, &agent)).leave(agent),
        Err(error) => {
            error!("cannot connect to the agent at `{}`: {error}", options.socket.display());
            ExitCode::FAILURE
        }
    }
}

fn live(source: &dyn Source, options: &Options, agent: &AgentConnection) -> Result<Finished, Stop> {
    let loaded = Loaded::load(source, options, agent)?;
    let joined = Joined::join(loaded, options, agent)?;
    let training = Training::begin(joined, options)?;
    training.finish(options, agent)
}

fn hello(options: &Options) -> ProcessHello {
    ProcessHello {
        run: options.run.as_str().to_owned(),
        generation: options.generation,
        process: options.process,
        protocol: lockstep_rpc::PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Says so if the exchange listens where other machines can reach it: it proves a secret, and encrypts nothing.
pub fn warn_if_reachable(bind: IpAddr) {
    if !bind.is_loopback() {
        warn!("gradients travel unencrypted between processes: `{bind}` should be on a network of your own");
    }
}
