//! Where a run stands. What reports change at each step, and what is large, are rows of their own: [`crate::state::RowKey`].

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

/// What processes measured: some kilobytes, which change once in a generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What changes bits, as measured by the first process of this generation that was ready.
    pub numerics: Option<MeasuredNumerics>,
    /// What the checkpoint has that the next generation would begin with.
    pub restored: BTreeMap<String, String>,
    /// What the run measured that this one repeats a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<BTreeMap<String, String>>,
    /// What process 0 of this generation runs on.
    pub environment: BTreeMap<String, String>,
    /// What was otherwise than in a checkpoint, in this run or in those that it comes from, and was accepted.
    pub overrides: Vec<Override>,
}

/// How far a run is, as its reports say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::state) struct RunProgress {
    /// [`RunState::progress`].
    pub(in crate::state) progress: Option<Progress>,
    /// [`RunState::heard_at_ms`].
    pub(in crate::state) heard_at_ms: u64,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// In a word.
    pub status: Status,
    /// The current placement's number, from 1; one that is queued has the number of the placement to come.
    pub generation: u64,
    /// What it trains on, once it was placed: a later generation on another kind would not give the same bits.
    pub kind: Option<DeviceKind>,
    /// The current generation's processes, by number; empty while it is queued.
    #[serde(skip)]
    pub placement: BTreeMap<u32, ProcessState>,
    /// As of the last block, unless that was rolled back.
    #[serde(skip)]
    pub progress: Option<Progress>,
    /// When a process was last heard of.
    #[serde(skip)]
    pub heard_at_ms: u64,
    /// When all processes were ready for the first time.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// What this generation begins with: the last committed checkpoint, or the parent.
    pub restore: Option<Restore>,
    /// What was measured of its processes.
    #[serde(skip)]
    pub measured: Measured,
    /// Processes that crashed since the last checkpoint.
    pub exits: u32,
    /// Processes that gave up since then for a reason that may pass.
    #[serde(default)]
    pub transients: u32,
    /// Generations in a row, the last ones, that ended before their first step for a reason that costs nothing.
    #[serde(default)]
    pub futile: u32,
    /// When the pause before the next attempt is over, in milliseconds since the epoch; 0: there is none.
    #[serde(default)]
    pub due_at_ms: u64,
    /// Generations before this one.
    pub restarts: u32,
    /// The last process that ended too early.
    pub last_exit: Option<ProcessExit>,
    /// Checkpoints that could not be made, oldest first.
    pub failed_checkpoints: Vec<FailedCheckpoint>,
    /// Replicas that were found to differ, oldest first.
    pub corruptions: Vec<Corruption>,
    /// Written on it by people, as the note.
    pub tags: BTreeSet<String>,
    /// Empty if there is none.
    pub note: String,
    /// Times that the shares of the last checkpoint were rejected in this generation: processes that see it grow write
    /// theirs again.
    #[serde(default)]
    pub save_attempt: u32,
    /// What processes of this generation said of all, and nobody of another node yet.
    #[serde(default, rename = "words")]
    pub unconfirmed: Vec<Unconfirmed>,
    /// Nodes on which a process crashed or gave up since the last checkpoint, and how often.
    #[serde(default)]
    pub failed_on: BTreeMap<NodeId, u32>,
}
