//! What the agent starts a rank process with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lockstep_common::RunId;

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
