//! Why an agent cannot run. What goes wrong later (coordinator away, disk full, process dead) it lives with.

use std::io;
use std::path::PathBuf;

use lockstep_host::durable::LockError;

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address to join is none.
    #[error("`{address}` is not an address to join: expected `host:port`")]
    Address {
        /// As given.
        address: String,
    },
    /// The data directory is another agent's, or cannot be made.
    #[error("cannot use the agent's data directory")]
    DataDir(#[source] LockError),
    /// Something below the data directory cannot be made or read.
    #[error("cannot use `{}`", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The NVML library that was named cannot be used.
    #[error("cannot use the NVML library `{}`", path.display())]
    Nvml {
        /// The library.
        path: PathBuf,
        /// Why.
        #[source]
        source: nvml_wrapper::error::NvmlError,
    },
    /// CUDA devices were asked for, and there are none.
    #[error("`devices = \"cuda\"`, but NVML finds no device")]
    NoCuda,
    /// The coordinator did not take this node.
    #[error("{0}")]
    Refused(String),
    /// The system has no randomness.
    #[error("cannot draw a random incarnation: {0}")]
    Randomness(getrandom::Error),
}
