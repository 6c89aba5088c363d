//! Runs that ended long ago. The state keeps what commands ask of them; all else is in the archive of whoever stores the state.
//!
//! An archived run is the rows that it had: [`ArchivedRun::whole`] makes it again.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::RunId;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterState;
use super::row_key::{RowKey, StateError};
use super::runs::{Checkpoint, ProcessPhase, Run, Status};
use crate::formats::{decode, encode};
use crate::outcome::Effect;
use crate::placement::DeviceKind;
use crate::view::RunRow;

/// A run in the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchivedRun {
    /// Index of the log entry that created it.
    pub number: u64,
    /// The job's name.
    pub name: String,
    /// How it ended, in a word.
    pub status: String,
    /// What it trained on.
    pub kind: Option<DeviceKind>,
    /// Whether it repeated a part of another run.
    pub is_replay: bool,
    /// Written on it by people, as the note.
    pub tags: BTreeSet<String>,
    /// Empty if there is none.
    pub note: String,
    /// Committed checkpoints, by step: rows of their own.
    #[serde(skip)]
    pub checkpoints: BTreeMap<u64, Checkpoint>,
}

impl ArchivedRun {
    fn of(run: &Run) -> Self {
        Self {
            number: run.submission.number,
            name: run.job.name.clone(),
            status: run.state.status.word().to_owned(),
            kind: run.state.kind,
            is_replay: run.submission.replay.is_some(),
            tags: run.state.tags.clone(),
            note: run.state.note.clone(),
            checkpoints: run.checkpoints.clone(),
        }
    }

    /// What a list shows of it, from the rows that went to the archive.
    ///
    /// # Errors
    /// As [`ClusterState::from_rows`].
    pub fn row(&self, id: &RunId, rows: &[(String, Vec<u8>)]) -> Result<RunRow, StateError> {
        let key = in_list(id);
        let found = rows.iter().find(|(of, _)| *of == key).map(|(_, value)| value.as_slice()).unwrap_or_default();
        let row: RunRow = decode(found).map_err(|source| StateError::Value { key, source })?;
        Ok(RunRow { tags: self.tags.iter().cloned().collect(), ..row })
    }

    /// The whole run, from the rows that went to the archive.
    ///
    /// # Errors
    /// As [`ClusterState::from_rows`].
    pub fn whole(&self, id: &RunId, mut rows: Vec<(String, Vec<u8>)>) -> Result<Run, StateError> {
        let row = in_list(id);
        rows.retain(|(key, _)| *key != row);
        let mut run = ClusterState::run_of_rows(id, rows)?;
        run.checkpoints.clone_from(&self.checkpoints);
        run.state.tags.clone_from(&self.tags);
        run.state.note.clone_from(&self.note);
        Ok(run)
    }
}

/// Where the archive keeps what a list shows of a run: a list need not make each run again.
fn in_list(id: &RunId) -> String {
    format!("list/{id}")
}

impl Run {
    /// Whether nothing of it is under way any more: no process may run, and no checkpoint waits to be opened.
    pub fn is_settled(&self) -> bool {
        let gone = |phase| matches!(phase, ProcessPhase::Finished { exited: true, .. });
        let is_over = match self.state.status {
            Status::Failed { .. } | Status::Cancelled => true,
            Status::Finished { .. } | Status::Unsaved { .. } => {
                self.state.placement.values().all(|placed| gone(placed.phase))
            }
            Status::Queued { .. } | Status::Starting | Status::Running => false,
        };
        is_over && self.owed.is_empty() && self.shares.is_empty()
    }
}

impl ClusterState {
    /// An archived run.
    pub fn archived(&self, id: &RunId) -> Option<&ArchivedRun> {
        self.archived.get(id)
    }

    /// Runs that could go to the archive, those that ended first at the front; without the `keep` that ended last.
    pub fn to_archive(&self, keep: usize) -> Vec<RunId> {
        let settled = self.runs.values().filter(|run| run.is_settled());
        let mut settled: Vec<(u64, RunId)> =
            settled.map(|run| (run.state.ended_at_ms.unwrap_or(0), run.id().clone())).collect();
        settled.sort();
        settled.truncate(settled.len().saturating_sub(keep));
        settled.into_iter().map(|(_, id)| id).collect()
    }

    /// How many runs of the archive ended how.
    pub fn archived_by_status(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for run in self.archived.values() {
            *counts.entry(run.status.clone()).or_default() += 1;
        }
        counts
    }

    /// The last checkpoint of each run that has one.
    pub fn last_checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        let made = self.runs.values().map(|run| &run.checkpoints);
        let made = made.chain(self.archived.values().map(|run| &run.checkpoints));
        made.filter_map(|made| made.values().next_back())
    }

    /// Moves a run to the archive, if it may go there.
    pub(crate) fn archive(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(id).filter(|run| run.is_settled()) else { return };
        let processes = run.state.placement.keys().map(|&process| RowKey::Process(id.clone(), process));
        let rows = [RowKey::Submission, RowKey::Run, RowKey::Measured, RowKey::Progress];
        let kept: Vec<RowKey> = rows.into_iter().map(|row| row(id.clone())).chain(processes).collect();
        let rows = kept.iter().filter_map(|key| Some((key.to_string(), self.row(key)?)));
        let rows = rows.chain([(in_list(id), encode(&RunRow::of(run)))]).collect();
        effects.push(Effect::Archive { run: id.clone(), rows });
        let reported = run.state.placement.keys().map(|&process| RowKey::Reported(id.clone(), process));
        self.changed.extend(reported.chain(kept).chain([RowKey::Archived(id.clone())]));
        self.archived.insert(id.clone(), ArchivedRun::of(run));
        self.runs.remove(id);
    }

    /// An archived run, to be written on.
    pub(crate) fn archived_mut(&mut self, id: &RunId) -> Option<&mut ArchivedRun> {
        let archived = self.archived.get_mut(id)?;
        self.changed.insert(RowKey::Archived(id.clone()));
        Some(archived)
    }
}
