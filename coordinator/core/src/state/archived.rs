//! Runs that ended long ago. The state keeps only the data that commands need; the archive in the coordinator's database has the rest.
//!
//! The archive contains the run's rows, from which [`ArchivedRun::whole`] rebuilds the run.

use std::collections::BTreeMap;

use lockstep_common::RunId;

use super::cluster::ClusterState;
use super::row_key::{RowKey, StateError};
use super::runs::{ArchivedRun, Checkpoint, ProcessPhase, Run, Status, StatusKind, Submission};
use crate::formats::{decode, encode};
use crate::outcome::{Effect, ToArchive};
use crate::view::RunRow;

/// The part of an archived run's row in lists that the state contains.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Id of the archived run.
    pub id: RunId,
    /// Index of the log entry that created the run: its key in the archive.
    pub number: u64,
    /// Present tags, which may be newer than the archive.
    pub tags: Vec<String>,
}

impl ArchivedRun {
    /// The data that a list needs in addition to the archive's.
    pub fn listed(&self, id: &RunId) -> Listed {
        Listed { id: id.clone(), number: self.number, tags: self.tags.iter().cloned().collect() }
    }

    /// The job in canonical form, from the archived rows.
    ///
    /// # Errors
    /// `Value` if the submission cannot be decoded, `Contradiction` if it is missing.
    pub fn job(id: &RunId, rows: &[(String, Vec<u8>)]) -> Result<String, StateError> {
        let key = RowKey::Submission(id.clone()).to_string();
        let Some((_, value)) = rows.iter().find(|(of, _)| *of == key) else {
            return Err(StateError::Contradiction { key, detail: "the archive does not contain it".to_owned() });
        };
        let submission: Submission = decode(value).map_err(|source| StateError::Value { key, source })?;
        Ok(submission.job)
    }

    /// The encoded [`RunRow`], from the archived rows. For runs that an earlier build archived without one.
    ///
    /// # Errors
    /// As [`ClusterState::from_rows`].
    pub fn for_lists(&self, id: &RunId, rows: Vec<(String, Vec<u8>)>) -> Result<Vec<u8>, StateError> {
        Ok(encode(&RunRow::of(&self.whole(id, rows)?)))
    }

    /// Rebuilds the run from the archived rows.
    ///
    /// # Errors
    /// As [`ClusterState::from_rows`].
    pub fn whole(&self, id: &RunId, mut rows: Vec<(String, Vec<u8>)>) -> Result<Run, StateError> {
        // Earlier builds archived the row for lists among them.
        rows.retain(|(key, _)| !key.starts_with("list/"));
        let mut run = ClusterState::run_of_rows(id, rows)?;
        run.checkpoints = self.checkpoints.iter().map(|made| (made.step, made.clone())).collect();
        run.state.tags.clone_from(&self.tags);
        run.state.note.clone_from(&self.note);
        Ok(run)
    }
}

impl Listed {
    /// Makes the row from `for_lists` of the archive, with the present tags.
    ///
    /// # Errors
    /// `Value` if `for_lists` cannot be decoded.
    pub fn row(self, for_lists: &[u8]) -> Result<RunRow, StateError> {
        let row: RunRow = decode(for_lists)
            .map_err(|source| StateError::Value { key: RowKey::Archived(self.id.clone()).to_string(), source })?;
        Ok(RunRow { id: self.id, number: self.number, tags: self.tags, ..row })
    }
}

impl Run {
    /// Whether the run has ended, no process of it may be running, and no checkpoint waits to be opened. Then it can be archived.
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
    /// The archived run with this id; `None` if it is not archived.
    pub fn archived(&self, id: &RunId) -> Option<&ArchivedRun> {
        self.archived.get(id)
    }

    /// All archived runs, sorted by id.
    pub fn all_archived(&self) -> impl Iterator<Item = (&RunId, &ArchivedRun)> {
        self.archived.iter()
    }

    /// Runs that have not ended, in the order of submission.
    pub fn going_on(&self) -> Vec<&Run> {
        let mut runs = self.runs();
        runs.retain(|run| !run.state.status.is_final());
        runs
    }

    /// Runs that can be archived, in the order of their ends, without the last `keep`.
    pub fn to_archive(&self, keep: usize) -> Vec<RunId> {
        let settled = self.runs.values().filter(|run| run.is_settled());
        let mut settled: Vec<(u64, RunId)> =
            settled.map(|run| (run.state.ended_at_ms.unwrap_or(0), run.id().clone())).collect();
        settled.sort();
        settled.truncate(settled.len().saturating_sub(keep));
        settled.into_iter().map(|(_, id)| id).collect()
    }

    /// Number of archived runs by status.
    pub fn archived_by_status(&self) -> BTreeMap<StatusKind, usize> {
        let mut counts = BTreeMap::new();
        for run in self.archived.values() {
            *counts.entry(run.status).or_default() += 1;
        }
        counts
    }

    /// The last committed checkpoint of each run that has one, also of archived runs.
    pub fn last_checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        let made = self.runs.values().filter_map(|run| run.checkpoints.values().next_back());
        made.chain(self.archived.values().filter_map(|run| run.checkpoints.last()))
    }

    /// Moves a run to the archive if it is settled. Otherwise does nothing.
    pub(crate) fn archive(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(id).filter(|run| run.is_settled()) else { return };
        let processes = run.state.placement.keys().map(|&process| RowKey::Process(id.clone(), process));
        let rows = [RowKey::Submission, RowKey::Run, RowKey::Measured, RowKey::Progress];
        let kept: Vec<RowKey> = rows.into_iter().map(|row| row(id.clone())).chain(processes).collect();
        let rows = kept.iter().filter_map(|key| Some((key.to_string(), self.row(key)?))).collect();
        effects.push(Effect::Archive(ToArchive {
            run: id.clone(),
            number: run.submission.number,
            for_lists: encode(&RunRow::of(run)),
            rows,
        }));
        let reported = run.state.placement.keys().map(|&process| RowKey::Reported(id.clone(), process));
        self.changed.extend(reported.chain(kept).chain([RowKey::Archived(id.clone())]));
        self.archived.insert(id.clone(), ArchivedRun::of(run));
        self.runs.remove(id);
    }

    /// As [`ClusterState::archived`], for changes: marks the run's row as changed.
    pub(crate) fn archived_mut(&mut self, id: &RunId) -> Option<&mut ArchivedRun> {
        let archived = self.archived.get_mut(id)?;
        self.changed.insert(RowKey::Archived(id.clone()));
        Some(archived)
    }
}
