//! The state of a run. Values that each report changes, and large values, have rows of their own ([`crate::state::RowKey`]).

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::NodeId;
use lockstep_common::manifest::Override;
use serde::{Deserialize, Serialize};

use super::checkpoint::{FailedCheckpoint, Restore};
use super::corruption::Corruption;
use super::process::{MeasuredNumerics, ProcessExit, ProcessState};
use super::status::Status;
use super::unconfirmed::Unconfirmed;
use crate::placement::DeviceKind;
use crate::state::reports::Progress;

/// Measurements of a run's processes: some kilobytes, which change once per generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Properties that are known to change bits, as measured by the first process of this generation that was ready.
    pub numerics: Option<MeasuredNumerics>,
    /// Numerics of the checkpoint that the next generation would start from.
    pub restored: BTreeMap<String, String>,
    /// Numerics of the original run; only in a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<BTreeMap<String, String>>,
    /// Machine and software of process 0 of this generation.
    pub environment: BTreeMap<String, String>,
    /// Accepted differences from checkpoints, of this run and of the runs that it descends from.
    pub overrides: Vec<Override>,
}

/// Progress of a run: the fields of [`RunState`] that each report changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::state) struct RunProgress {
    /// As [`RunState::progress`].
    pub(in crate::state) progress: Option<Progress>,
    /// As [`RunState::heard_at_ms`].
    pub(in crate::state) heard_at_ms: u64,
}

/// Mutable properties of a run. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Status with its reason or result.
    pub status: Status,
    /// Number of the current placement, from 1. While the run is queued: of the next placement.
    pub generation: u64,
    /// Kind of device of all generations, because another kind would give other bits; `None` before the first placement.
    pub kind: Option<DeviceKind>,
    /// The current generation's processes, by process index; empty while the run is queued.
    #[serde(skip)]
    pub placement: BTreeMap<u32, ProcessState>,
    /// Progress in the last block of steps; `None` at the start of a generation.
    #[serde(skip)]
    pub progress: Option<Progress>,
    /// Time of the last report.
    #[serde(skip)]
    pub heard_at_ms: u64,
    /// The first time at which all processes were ready.
    pub started_at_ms: Option<u64>,
    /// Time of the end; `None` if the run has not ended.
    pub ended_at_ms: Option<u64>,
    /// The checkpoint that this generation starts from: the run's last committed one, or the parent; `None`: from step 0.
    pub restore: Option<Restore>,
    /// Measurements of the processes.
    #[serde(skip)]
    pub measured: Measured,
    /// Number of processes that crashed since the last checkpoint.
    pub exits: u32,
    /// Number of processes that failed with a transient error since the last checkpoint.
    #[serde(default)]
    pub transients: u32,
    /// Number of the last generations in a row that ended before their first step, without a crash or error.
    #[serde(default)]
    pub futile: u32,
    /// End of the pause before the next attempt; 0: no pause.
    #[serde(default)]
    pub due_at_ms: u64,
    /// Number of earlier generations.
    pub restarts: u32,
    /// The last process that ended before it finished.
    pub last_exit: Option<ProcessExit>,
    /// Failed checkpoints, oldest first; the newest 100.
    pub failed_checkpoints: Vec<FailedCheckpoint>,
    /// Corruptions, oldest first.
    pub corruptions: Vec<Corruption>,
    /// Tags that users set.
    pub tags: BTreeSet<String>,
    /// Note that users wrote; empty if there is none.
    pub note: String,
    /// Number of times that the shares of the last checkpoint were rejected in this generation. When it grows, the processes write their
    /// shares again.
    #[serde(default)]
    pub save_attempt: u32,
    /// Comparisons of all replicas that no process on another node has confirmed yet.
    #[serde(default, rename = "words")]
    pub unconfirmed: Vec<Unconfirmed>,
    /// Number of processes per node that crashed or failed with a transient error since the last checkpoint.
    #[serde(default)]
    pub failed_on: BTreeMap<NodeId, u32>,
}
