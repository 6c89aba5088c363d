//! Owed checkpoints: written, but not opened yet, when their generation ended.

use std::collections::BTreeMap;

use lockstep_common::manifest::{Override, Piece};
use serde::{Deserialize, Serialize};

/// A written checkpoint of an ended generation, with the measurements of that generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    /// The generation that wrote the checkpoint.
    pub generation: u64,
    /// The blob of each process's share, by process index.
    pub shares: BTreeMap<u32, Piece>,
    /// Machine and software of process 0.
    pub environment: BTreeMap<String, String>,
    /// Properties that are known to change bits.
    pub numerics: BTreeMap<String, String>,
    /// Accepted differences from the checkpoints that the run descends from.
    pub overrides: Vec<Override>,
}
