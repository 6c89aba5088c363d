//! A checkpoint that outlives its generation.

use std::collections::BTreeMap;

use lockstep_common::manifest::{Override, Piece};
use serde::{Deserialize, Serialize};

/// A written checkpoint of a generation that has ended, and what that generation was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    /// The generation that wrote it.
    pub generation: u64,
    /// The blob of each process's share.
    pub shares: BTreeMap<u32, Piece>,
    /// What process 0 ran on.
    pub environment: BTreeMap<String, String>,
    /// What is known to change bits.
    pub numerics: BTreeMap<String, String>,
    /// What was otherwise than in a checkpoint that the run comes from.
    pub overrides: Vec<Override>,
}
