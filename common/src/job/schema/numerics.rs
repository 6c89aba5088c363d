//! The keys of `[numerics]`: what fixes the bits.

use serde::{Deserialize, Serialize};

use crate::job::error::JobError;

/// Threads of one process: no machine has more processors, and each thread takes memory.
const MOST_THREADS: u32 = 1024;

/// A determinism level: a documented set of switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As fast as libtorch goes; nothing is promised.
    Off,
    /// Same machine kind, same bits.
    #[default]
    Exact,
    /// Also pins the CPU code path, so that different CPU models agree. A third to two thirds of the speed: `NUMERICS.md`.
    Portable,
}

/// The order in which ranks' gradients are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// The fixed tree: the same bits for every number of processes.
    #[default]
    Tree,
    /// The back end's own all-reduce: exact only at a fixed number of processes.
    Native,
}

/// Lower precision in forward and loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Autocast {
    /// Full precision.
    #[default]
    Off,
    /// bfloat16 where libtorch's autocast says so.
    Bf16,
}

/// What fixes the bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    /// The determinism level.
    #[serde(default)]
    pub level: Level,
    /// libtorch's intra-op threads of each process, at most 1024. Changes bits.
    #[serde(default = "super::range::one")]
    pub threads: u32,
    /// The order of additions.
    #[serde(default)]
    pub reduction: Reduction,
    /// Lets matrix products round their inputs to TF32 on CUDA.
    #[serde(default)]
    pub tf32: bool,
    /// Lower precision in forward and loss.
    #[serde(default)]
    pub autocast: Autocast,
}

impl Numerics {
    pub(super) fn check(&self) -> Result<(), JobError> {
        if self.threads == 0 {
            return Err(JobError::value("numerics.threads", "0 is not at least 1"));
        }
        Ok(())
    }

    /// What is refused of a new job only.
    pub(super) fn check_new(&self) -> Result<(), JobError> {
        let threads = self.threads;
        if threads > MOST_THREADS {
            let detail = format!("{threads} threads are more than a process may have, which are {MOST_THREADS}");
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
