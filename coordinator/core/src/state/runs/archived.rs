//! What the state keeps of a run in the archive.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::run::Run;
use super::status::StatusKind;
use crate::placement::DeviceKind;

/// A run in the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchivedRun {
    /// Index of the log entry that created it.
    pub number: u64,
    /// The job's name.
    pub name: String,
    /// How it ended.
    pub status: StatusKind,
    /// What it trained on.
    pub kind: Option<DeviceKind>,
    /// Whether it repeated a part of another run.
    pub is_replay: bool,
    /// Written on it by people, as the note.
    pub tags: BTreeSet<String>,
    /// Empty if there is none.
    pub note: String,
    /// Committed checkpoints, by step: rows of their own. A list, because a map has room for eleven where two are.
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

    /// Its checkpoint at `step`.
    pub(in crate::state) fn checkpoint(&self, step: u64) -> Option<&Checkpoint> {
        let at = self.checkpoints.binary_search_by_key(&step, |made| made.step);
        at.ok().map(|at| &self.checkpoints[at])
    }

    /// Adds one: to what rows are read into.
    pub(in crate::state) fn add_checkpoint(&mut self, made: Checkpoint) {
        let at = self.checkpoints.partition_point(|other| other.step < made.step);
        // No more room than it needs: it stays.
        self.checkpoints.reserve_exact(1);
        self.checkpoints.insert(at, made);
    }
}
