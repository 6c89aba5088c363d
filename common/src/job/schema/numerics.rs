//! `[numerics]`: settings that determine the bits of the result.

use serde::{Deserialize, Serialize};

use crate::job::error::JobError;

/// The most threads of one process. More than a machine's processors are useless, and each thread takes memory.
const MOST_THREADS: u32 = 1024;

/// A determinism level: a set of switches, listed in `NUMERICS.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// libtorch's defaults: no determinism is guaranteed.
    Off,
    /// The same bits on machines of the same kind.
    #[default]
    Exact,
    /// `Exact`, and one code path for all CPUs, so that different CPU models give the same bits. Runs at a third to two thirds of the
    /// speed: see `NUMERICS.md`.
    Portable,
}

/// The order in which ranks' gradients are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// The fixed tree: the same bits for every number of processes.
    #[default]
    Tree,
    /// The back end's own all-reduce: another number of processes gives other bits.
    Native,
}

/// Automatic mixed precision in the forward pass and the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Autocast {
    /// All operators compute in 32 bits.
    #[default]
    Off,
    /// Operators on libtorch's autocast list compute in bfloat16.
    Bf16,
}

/// Settings that determine the bits of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    /// Determinism level.
    #[serde(default)]
    pub level: Level,
    /// libtorch's intra-op threads of each process, from 1 to 1024. Another number gives other bits.
    #[serde(default = "super::range::one")]
    pub threads: u32,
    /// The order in which ranks' gradients are added.
    #[serde(default)]
    pub reduction: Reduction,
    /// Lets matrix products on CUDA round their inputs to TF32.
    #[serde(default)]
    pub tf32: bool,
    /// Automatic mixed precision in the forward pass and the loss.
    #[serde(default)]
    pub autocast: Autocast,
}

impl Numerics {
    pub(super) fn check(&self) -> Result<(), JobError> {
        if self.threads == 0 {
            return Err(JobError::value("numerics.threads", "must be at least 1, not 0"));
        }
        Ok(())
    }

    /// Limits that only new jobs must keep.
    pub(super) fn check_new(&self) -> Result<(), JobError> {
        let threads = self.threads;
        if threads > MOST_THREADS {
            let detail = format!("{threads} threads are too many: a process may have {MOST_THREADS}");
            return Err(JobError::value("numerics.threads", detail));
        }
        Ok(())
    }
}

impl Default for Numerics {
    fn default() -> Self {
        Self {
            level: Level::default(),
            threads: super::range::one(),
            reduction: Reduction::default(),
            tf32: false,
            autocast: Autocast::default(),
        }
    }
}
