//! Checkpoints: committed ones, those that could not be made, and the one to begin from.

use lockstep_common::Digest;
use lockstep_common::manifest::Piece;
use serde::{Deserialize, Serialize};

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Digest of its manifest.
    pub id: Digest,
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The generation that made it.
    pub generation: u64,
    /// Milliseconds since the epoch.
    pub committed_at_ms: u64,
    /// Digest of the state in it.
    pub state: Digest,
    /// The blob of its manifest.
    pub manifest: Piece,
}

/// A checkpoint that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheckpoint {
    /// Of which generation.
    pub generation: u64,
    /// Steps completed.
    pub step: u64,
    /// Why, the last time.
    pub reason: String,
    /// Milliseconds since the epoch, the last time.
    pub at_ms: u64,
    /// Times that it failed.
    #[serde(default = "once")]
    pub attempts: u32,
}

fn once() -> u32 {
    1
}

/// A checkpoint to begin from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Its id.
    pub checkpoint: Digest,
    /// Its step.
    pub step: u64,
    /// The blob of its manifest.
    pub manifest: Piece,
}

impl From<&Checkpoint> for Restore {
    fn from(made: &Checkpoint) -> Self {
        Self { checkpoint: made.id, step: made.step, manifest: made.manifest.clone() }
    }
}
