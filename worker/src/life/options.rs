//! The options of a rank process, which the agent sets.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lockstep_common::RunId;

/// The options of a rank process.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the agent's Unix socket.
    pub socket: PathBuf,
    /// Id of the run.
    pub run: RunId,
    /// Generation of the run.
    pub generation: u64,
    /// Process index, from 0.
    pub process: u32,
    /// IP address at which the exchange listens, on a free port.
    pub bind: IpAddr,
    /// Whether gradients go through shared memory between processes on the same machine.
    pub shared_memory: bool,
    /// How long a failed last checkpoint is retried.
    pub save_limit: Duration,
    /// Silence after which a peer counts as lost. A peer that dies is noticed at once, and a peer that hangs is stopped by its agent; this
    /// limit is for a cut network. It must be longer than a peer may wait for a slow store.
    pub silence_limit: Duration,
}
