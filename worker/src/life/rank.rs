//! The life of a rank process: a sequence of states, each in its own file.
//!
//! ```text
//! hello ─> assign ─> loaded ─ ready ─> start ─> joined ─> training ─> ended ─ finished ─> drained ─> exit 0
//! ```

use std::net::IpAddr;
use std::process::ExitCode;

use lockstep_rpc::ProcessHello;
use lockstep_tch_ext::stacks;
use tracing::{error, warn};

use super::agent::AgentConnection;
use super::ended::{Ended, Stop};
use super::joined::Joined;
use super::loaded::Loaded;
use super::options::Options;
use super::training::Training;
use crate::program::Source;
use crate::step::Finished;

/// Runs a rank process, which trains `source`, from its connection to the agent to its exit code.
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

/// Logs a warning if the exchange listens at an address that other machines can reach: peers authenticate with a secret, but gradients are
/// not encrypted.
pub fn warn_if_reachable(bind: IpAddr) {
    if !bind.is_loopback() {
        warn!(
            "gradients are exchanged unencrypted on `{bind}`: set `bind` in `worker.toml` to an address of a private network"
        );
    }
}
