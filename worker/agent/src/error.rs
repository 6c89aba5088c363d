//! Errors that end an agent. Others (coordinator away, disk full, process dead) are logged and retried.

use std::io;
use std::path::PathBuf;

use lockstep_host::durable::LockError;

/// Why an agent cannot start, or cannot join.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant explains its fields")]
pub enum AgentError {
    /// The value of `join` is not `host:port`.
    #[error("`{address}` is not an address to join: expected `host:port`")]
    Address { address: String },
    /// The data directory is in use by another agent, or cannot be created.
    #[error("cannot use the agent's data directory")]
    DataDir(#[source] LockError),
    /// A file or directory below the data directory cannot be created or read.
    #[error("cannot use `{}`", path.display())]
    Path {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The library that `nvml_library` names cannot be loaded, or finds no driver.
    #[error("cannot use the NVML library `{}` (key `nvml_library`)", path.display())]
    Nvml {
        path: PathBuf,
        #[source]
        source: nvml_wrapper::error::NvmlError,
    },
    /// The value of `devices` is `cuda`, and there is no CUDA device.
    #[error(
        "`devices = \"cuda\"`, but NVML finds no device: check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or set `devices = \"cpu\"`"
    )]
    NoCuda,
    /// The coordinator refused this node at its first join. Ends `worker` with exit code 3.
    #[error("{0}")]
    Refused(String),
    /// The system gives no random bytes, of which ids are made.
    #[error("cannot draw a random id: {0}")]
    Randomness(getrandom::Error),
}
