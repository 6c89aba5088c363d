//! The processes of a generation: where each is, how far, and how it ended.

use std::collections::BTreeMap;

use lockstep_common::{Digest, Ending, NodeId};
use serde::{Deserialize, Serialize};

/// A process of the current generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// On which node.
    pub node: NodeId,
    /// On which of its devices: index into [`super::Node::devices`].
    pub device: u32,
    /// The device's name.
    pub device_name: String,
    /// How far it is.
    pub phase: ProcessPhase,
    /// Where its exchange listens, once it is ready.
    pub address: Option<String>,
    /// The last report of it that was applied; 0: none. Each report changes it, so it is a row of its own.
    #[serde(skip)]
    pub sequence: u64,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessPhase {
    /// Its node was told to start it.
    Assigned,
    /// Model and data are in memory.
    Ready,
    /// It made the last step.
    Finished {
        /// Digest of its final state.
        state: Digest,
        /// Whether the process is gone.
        exited: bool,
    },
}

/// What one process measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredNumerics {
    /// The process.
    pub process: u32,
    /// Values by key.
    pub values: BTreeMap<String, String>,
}

/// The end of a process that had not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// Of which generation.
    pub generation: u64,
    /// The process.
    pub process: u32,
    /// Its node.
    pub node: NodeId,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Its last output.
    pub output: String,
    /// How it ended, in a word; `None` in states of builds that did not say.
    #[serde(default)]
    pub ending: Option<Ending>,
}
