//! The contents of reports.

use std::collections::BTreeMap;

use lockstep_common::manifest::{Override, Piece};
use lockstep_common::{Digest, Ending};
use serde::{Deserialize, Serialize};

/// The contents of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReportBody {
    /// The process has loaded model and data, and accepts connections of other processes.
    Ready {
        /// Address at which other processes connect, as `HOST:PORT`.
        address: String,
        /// Properties that are known to change bits. They must be equal in all processes of the generation, and after a resume equal to the
        /// manifest's. A difference fails the run, and the reason names the key and both values.
        numerics: BTreeMap<String, String>,
        /// Machine and software of the process.
        environment: BTreeMap<String, String>,
    },
    /// A block of reports. It is stored outside the state, without decoding it.
    Block {
        /// Progress at the end of the block; `None` if the block contains no steps. Only process 0 reports steps.
        progress: Option<Progress>,
        /// The encoded `ReportBlock`.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The process has written its share of a checkpoint. After the last share the leader opens the blobs ([`crate::Command::Commit`]).
    Share {
        /// Step of the checkpoint.
        step: u64,
        /// The blob that describes the share: a [`lockstep_common::manifest::Share`] in JSON.
        blob: Piece,
    },
    /// The process could not write its share. The checkpoint fails and the run continues; the process retries the run's last checkpoint.
    ShareFailed {
        /// Step of the checkpoint.
        step: u64,
        /// Error message with its cause; cut to 4,096 bytes when it is stored.
        reason: String,
    },
    /// The process has completed the run's last step.
    Finished {
        /// Number of completed steps.
        step: u64,
        /// Digest of the final state. If it is not equal in all processes, the run fails.
        state: Digest,
    },
    /// The process stops because of an error.
    Failed {
        /// Error message with its cause; cut to 4,096 bytes when it is stored.
        reason: String,
        /// Whether a retry may succeed: then the run restarts. Otherwise the run fails.
        #[serde(default)]
        transient: bool,
    },
    /// The process ended; its agent reports this. If the process had not finished, the run goes to its next generation, or fails.
    Exited {
        /// Exit code, or 128 + signal.
        code: i32,
        /// The last lines of its output.
        output: String,
        /// How the process ended; `None`: derived from `code`.
        #[serde(default)]
        ending: Option<Ending>,
    },
    /// The replicas differ. The reporting process has stopped.
    Corrupt {
        /// Number of completed steps.
        step: u64,
        /// The last step after which all replicas were equal, or the step that the generation started from.
        agreed: u64,
        /// Fingerprint of the state of each process, by process index.
        fingerprints: Vec<u64>,
        /// Names of the tensors that differ, in the order of the forward pass; empty if unknown.
        tensors: Vec<String>,
        /// Trail of the steps after `agreed`: one number for each rank's result of the first step, then of the second step, and so on. May
        /// end early.
        trail: Vec<u64>,
    },
    /// All replicas were equal after a step of [`crate::Assignment::judge_at`].
    Agreed {
        /// Number of completed steps.
        step: u64,
        /// Fingerprint of the state, equal in all processes.
        fingerprint: u64,
        /// Trail as in `Corrupt`, of the steps since the last comparison.
        trail: Vec<u64>,
    },
    /// The process computed values anew from changed data that a user accepted. Sent before `Ready`.
    Derived {
        /// The values in the checkpoint, and the new ones. Only keys of data count.
        overrides: Vec<Override>,
    },
    /// The process has written its share, but the coordinator cannot accept it: its description is too large.
    ShareRefused {
        /// Step of the checkpoint.
        step: u64,
        /// Error message with the length and the limit.
        reason: String,
    },
}

/// Progress of training at the end of a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of completed steps.
    pub step: u64,
    /// Bits of the last step's loss, an `f64`.
    pub loss: u64,
    /// Bits of the last step's gradient norm, an `f64`.
    pub grad_norm: u64,
    /// Mean over the block.
    pub samples_per_second: f64,
}
