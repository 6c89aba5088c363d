//! What a process can say.

use std::collections::BTreeMap;

use lockstep_common::manifest::{Override, Piece};
use lockstep_common::{Digest, Ending};
use serde::{Deserialize, Serialize};

/// What a process said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReportBody {
    /// Model and data are in memory; the exchange listens.
    Ready {
        /// Where.
        address: String,
        /// What is known to change bits; must be equal in all processes of the generation, and on a resume to the
        /// manifest's (key by key: a difference fails the run, naming the key and both values).
        numerics: BTreeMap<String, String>,
        /// What it runs on.
        environment: BTreeMap<String, String>,
    },
    /// A block of reports: opaque here, stored beside the state.
    Block {
        /// Progress at its end, if it holds steps (only from process 0).
        progress: Option<Progress>,
        /// The encoded `ReportBlock`.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// A share of a checkpoint is written. With the last one the leader opens its blobs ([`crate::Command::Commit`]).
    Share {
        /// Of the checkpoint at this step.
        step: u64,
        /// The blob that says what the share is: a [`lockstep_common::manifest::Share`] in JSON.
        blob: Piece,
    },
    /// A share could not be written: that checkpoint will not be, the run goes on. The run's last one is tried again.
    ShareFailed {
        /// Of the checkpoint at this step.
        step: u64,
        /// Why.
        reason: String,
    },
    /// The process made its last step.
    Finished {
        /// Steps completed.
        step: u64,
        /// Digest of the final state; equal in all processes, else the run fails as corrupt.
        state: Digest,
    },
    /// The process gave up.
    Failed {
        /// Why.
        reason: String,
        /// The reason may pass: the run is tried again. Else it would come again, and the run fails.
        #[serde(default)]
        transient: bool,
    },
    /// The process ended (its agent says so). Without `Finished` before: a new generation.
    Exited {
        /// Exit code, or 128 + signal.
        code: i32,
        /// Its last output.
        output: String,
        /// How its agent names that; `None`: as the code says.
        #[serde(default)]
        ending: Option<Ending>,
    },
    /// Replicas that should be equal are not. The process that says so has stopped.
    Corrupt {
        /// Steps completed.
        step: u64,
        /// The last step at which all agreed, or where the generation began.
        agreed: u64,
        /// What all tensors of each process come to, by process.
        fingerprints: Vec<u64>,
        /// The tensors that differ, in the order of a forward pass; empty if it could not be learned.
        tensors: Vec<String>,
        /// What the ranks computed in the steps after `agreed`: a word for each rank of the first step, then of the
        /// second, and so on, as far as it is known.
        trail: Vec<u64>,
    },
    /// All processes agreed at a step that was asked for ([`crate::Assigned::judge_at`]).
    Agreed {
        /// Steps completed.
        step: u64,
        /// What all tensors come to.
        fingerprint: u64,
        /// As in `Corrupt`, of the steps since the last one at which the processes compared.
        trail: Vec<u64>,
    },
    /// What was derived anew because a person accepted other data than the checkpoint's.
    Derived {
        /// Each of them.
        overrides: Vec<Override>,
    },
    /// A share that the process has written and the coordinator cannot take: its description is too large.
    ShareRefused {
        /// Of the checkpoint at this step.
        step: u64,
        /// In words, with both lengths.
        reason: String,
    },
}

/// Where training stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps completed.
    pub step: u64,
    /// Bits of the last loss (f64).
    pub loss: u64,
    /// Bits of the last gradient norm (f64).
    pub grad_norm: u64,
    /// Samples a second over the block.
    pub samples_per_second: f64,
}
