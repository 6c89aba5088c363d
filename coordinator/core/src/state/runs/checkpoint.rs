//! Checkpoints of a run: committed ones, failed ones, and the one to start from.

use lockstep_common::Digest;
use lockstep_common::manifest::Piece;
use serde::{Deserialize, Serialize};

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Digest of the manifest.
    pub id: Digest,
    /// Number of completed steps.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The generation that wrote the checkpoint.
    pub generation: u64,
    /// Time of the commit, in milliseconds since the Unix epoch.
    pub committed_at_ms: u64,
    /// Digest of the state in the checkpoint.
    pub state: Digest,
    /// Blob that contains the manifest.
    pub manifest: Piece,
}

/// A checkpoint that could not be written or opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheckpoint {
    /// The generation that tried to write the checkpoint.
    pub generation: u64,
    /// Number of completed steps.
    pub step: u64,
    /// Error message of the last failure; at most 4,096 bytes.
    pub reason: String,
    /// Time of the last failure, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Number of failures.
    #[serde(default = "once")]
    pub attempts: u32,
}

fn once() -> u32 {
    1
}

/// A checkpoint to start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Digest of the manifest.
    pub checkpoint: Digest,
    /// Number of completed steps.
    pub step: u64,
    /// Blob that contains the manifest.
    pub manifest: Piece,
}

impl From<&Checkpoint> for Restore {
    fn from(made: &Checkpoint) -> Self {
        Self { checkpoint: made.id, step: made.step, manifest: made.manifest.clone() }
    }
}
