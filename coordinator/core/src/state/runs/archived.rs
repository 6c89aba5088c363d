//! The part of an archived run that stays in the state.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::run::Run;
use super::status::StatusKind;
use crate::placement::DeviceKind;

/// The part of an archived run that stays in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchivedRun {
    /// Index of the log entry that created the run.
    pub number: u64,
    /// `name` of the job.
    pub name: String,
    /// Final status of the run.
    pub status: StatusKind,
    /// Kind of device that the run trained on; `None` if it was never placed.
    pub kind: Option<DeviceKind>,
    /// Whether the run re-ran steps of another run.
    pub is_replay: bool,
    /// Tags that users set, before or after the run's end.
    pub tags: BTreeSet<String>,
    /// Note that users wrote; empty if there is none.
    pub note: String,
    /// Committed checkpoints, sorted by step; they have rows of their own. A `Vec`, because a `BTreeMap` reserves memory for 11 entries.
    #[serde(skip)]
    pub checkpoints: Vec<Checkpoint>,
}

impl ArchivedRun {
    pub(in crate::state) fn of(run: &Run) -> Self {
        Self {
            number: run.submission.number,
            name: run.job.name.clone(),
            status: run.state.status.kind(),
            kind: run.state.kind,
            is_replay: run.submission.replay.is_some(),
            tags: run.state.tags.clone(),
            note: run.state.note.clone(),
            checkpoints: run.checkpoints.values().cloned().collect(),
        }
    }

    /// The committed checkpoint at `step`.
    pub(in crate::state) fn checkpoint(&self, step: u64) -> Option<&Checkpoint> {
        let at = self.checkpoints.binary_search_by_key(&step, |made| made.step);
        at.ok().map(|at| &self.checkpoints[at])
    }

    /// Adds a checkpoint, while rows are read.
    pub(in crate::state) fn add_checkpoint(&mut self, made: Checkpoint) {
        let at = self.checkpoints.partition_point(|other| other.step < made.step);
        // Reserves no spare memory, because archived runs stay in memory.
        self.checkpoints.reserve_exact(1);
        self.checkpoints.insert(at, made);
    }
}
