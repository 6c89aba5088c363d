//! The processes of a generation: placement, progress and end.

use std::collections::BTreeMap;

use lockstep_common::{Digest, Ending, NodeId};
use serde::{Deserialize, Serialize};

/// A process of the current generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// The node that runs the process.
    pub node: NodeId,
    /// Index in [`crate::state::Node::devices`].
    pub device: u32,
    /// `cpu` or `cuda:N`.
    pub device_name: String,
    /// Progress of the process.
    pub phase: ProcessPhase,
    /// Address at which other processes connect; `None` until the process is ready.
    pub address: Option<String>,
    /// Sequence number of the last applied report; 0: none. It has a row of its own, because each report changes it.
    #[serde(skip)]
    pub sequence: u64,
}

/// Progress of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessPhase {
    /// The process is in its node's desired state, and not ready yet.
    Assigned,
    /// The process has loaded model and data.
    Ready,
    /// The process has completed the run's last step.
    Finished {
        /// Digest of the final state.
        state: Digest,
        /// Whether the process has ended.
        exited: bool,
    },
}

/// Numerics that one process measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredNumerics {
    /// Index of the process that measured.
    pub process: u32,
    /// Measured values by key, such as `cpu.model`.
    pub values: BTreeMap<String, String>,
}

/// The end of a process that had not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// The generation of the process.
    pub generation: u64,
    /// Process index, from 0.
    pub process: u32,
    /// The node that ran the process.
    pub node: NodeId,
    /// Exit code, or 128 + signal; 0 if the process itself reported an error.
    pub code: i32,
    /// The end of its output; at most 4,096 bytes.
    pub output: String,
    /// How the process ended; `None` in states of early builds.
    #[serde(default)]
    pub ending: Option<Ending>,
}
