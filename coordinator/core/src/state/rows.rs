//! The state as rows, as the database stores it and raft snapshots transfer it.
//!
//! A row is a key in plain text and a value in the encoding of [`crate::formats`]. Values that change often are in small rows of their own:
//! a report rewrites two rows of less than 200 bytes together, whatever the number of processes.

use std::collections::BTreeSet;

use lockstep_common::RunId;
use lockstep_common::job::JobSpec;
use lockstep_common::manifest::Piece;
use serde::de::DeserializeOwned;

use super::cluster::ClusterState;
use super::node::Node;
use super::requests::Answered;
use super::retries::Retries;
use super::row_key::{RowKey, StateError};
use super::runs::Owed;
use crate::formats::{self, encode};

use super::runs::{ArchivedRun, Checkpoint, ProcessState, Restore, Run, RunProgress, RunState, Submission};

impl ClusterState {
    /// All rows, sorted by [`RowKey`].
    pub fn rows(&self) -> Vec<(String, Vec<u8>)> {
        self.keys().iter().filter_map(|key| Some((key.to_string(), self.row(key)?))).collect()
    }

    /// The keys of all rows.
    fn keys(&self) -> BTreeSet<RowKey> {
        let mut keys = BTreeSet::new();
        for (id, run) in &self.runs {
            let rows = [RowKey::Submission, RowKey::Run, RowKey::Measured, RowKey::Progress];
            keys.extend(rows.map(|row| row(id.clone())));
            for &process in run.state.placement.keys() {
                keys.extend([RowKey::Process(id.clone(), process), RowKey::Reported(id.clone(), process)]);
            }
            keys.extend(run.checkpoints.keys().map(|&step| RowKey::Checkpoint(id.clone(), step)));
            keys.extend(run.owed.keys().map(|&step| RowKey::Owed(id.clone(), step)));
            keys.extend(run.shares.keys().map(|&(step, process)| RowKey::Share(id.clone(), step, process)));
        }
        for (id, run) in &self.archived {
            keys.insert(RowKey::Archived(id.clone()));
            keys.extend(run.checkpoints.iter().map(|made| RowKey::Checkpoint(id.clone(), made.step)));
        }
        keys.extend(self.nodes.keys().cloned().map(RowKey::Node));
        keys.extend(self.requests.iter().map(|(request, _)| RowKey::Request(request.clone())));
        keys.extend((self.retries != Retries::default()).then_some(RowKey::Retries));
        keys
    }

    /// The rows that changed since the last call, with their new values; `None` for removed rows.
    pub fn take_changes(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().map(|key| (key.to_string(), self.row(key))).collect()
    }

    pub(super) fn row(&self, key: &RowKey) -> Option<Vec<u8>> {
        match key {
            RowKey::Submission(run) => self.runs.get(run).map(|run| encode(&run.submission)),
            RowKey::Archived(run) => self.archived.get(run).map(encode),
            RowKey::Run(run) => self.runs.get(run).map(|run| encode(&run.state)),
            RowKey::Measured(run) => self.runs.get(run).map(|run| encode(&run.state.measured)),
            RowKey::Progress(run) => self.runs.get(run).map(|run| {
                encode(&RunProgress { progress: run.state.progress.clone(), heard_at_ms: run.state.heard_at_ms })
            }),
            RowKey::Process(run, process) => self.runs.get(run)?.state.placement.get(process).map(encode),
            RowKey::Reported(run, process) => {
                self.runs.get(run)?.state.placement.get(process).map(|placed| encode(&placed.sequence))
            }
            RowKey::Checkpoint(run, step) => {
                let of_archived = || self.archived.get(run)?.checkpoint(*step);
                self.runs.get(run).map_or_else(of_archived, |run| run.checkpoints.get(step)).map(encode)
            }
            RowKey::Share(run, step, process) => self.runs.get(run)?.shares.get(&(*step, *process)).map(encode),
            RowKey::Node(node) => self.nodes.get(node).map(encode),
            RowKey::Request(request) => self.requests.get(request).map(encode),
            RowKey::Owed(run, step) => self.runs.get(run)?.owed.get(step).map(encode),
            RowKey::Retries => (self.retries != Retries::default()).then(|| encode(&self.retries)),
        }
    }

    /// Rebuilds the state from the rows that [`ClusterState::rows`] returned, in any order.
    ///
    /// # Errors
    /// `Key` or `Value` if a row is invalid, `Contradiction` if rows are missing or inconsistent.
    pub fn from_rows(rows: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, StateError> {
        let (rows, mut state) = Self::with_rows(rows)?;
        let there: BTreeSet<&RowKey> = rows.iter().collect();
        if let Some(key) = state.keys().iter().find(|key| !there.contains(key)) {
            return Err(StateError::Contradiction { key: key.to_string(), detail: "it is missing".to_owned() });
        }
        for run in state.runs.values() {
            state.check_run(run)?;
        }
        state.changed.clear();
        Ok(state)
    }

    /// Rebuilds a run from its archived rows.
    pub(super) fn run_of_rows(id: &RunId, rows: Vec<(String, Vec<u8>)>) -> Result<Run, StateError> {
        let (_, mut state) = Self::with_rows(rows)?;
        state.runs.remove(id).ok_or_else(|| StateError::Contradiction {
            key: RowKey::Submission(id.clone()).to_string(),
            detail: "the archive does not contain it".to_owned(),
        })
    }

    /// The parsed keys of `rows`, and the state that they make.
    fn with_rows(rows: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<(Vec<RowKey>, Self), StateError> {
        let parsed = rows.into_iter().map(|(text, value)| match RowKey::parse(&text) {
            Some(key) => Ok((key, value)),
            None => Err(StateError::Key { key: text }),
        });
        let mut rows: Vec<(RowKey, Vec<u8>)> = parsed.collect::<Result<_, _>>()?;
        // In the order of the enum, so that a run's submission comes before its other rows.
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut state = Self::default();
        for (key, value) in &rows {
            state.add_row(key, value)?;
        }
        state.numbers.sort_unstable();
        if let Some(run) = state.runs.values().find(|run| run.state.generation == 0) {
            let key = RowKey::Submission(run.id().clone()).to_string();
            return Err(StateError::Contradiction { key, detail: "the row of the run's state is missing".into() });
        }
        Ok((rows.into_iter().map(|(key, _)| key).collect(), state))
    }

    /// Checks that the state contains the checkpoint that `run` starts from. A valid row may be older than the other rows.
    fn check_run(&self, run: &Run) -> Result<(), StateError> {
        let contradiction =
            |detail: String| Err(StateError::Contradiction { key: RowKey::Run(run.id().clone()).to_string(), detail });
        if let Some(restore) = &run.state.restore
            && !self.checkpoint(&restore.checkpoint).is_ok_and(|(_, made)| Restore::from(made) == *restore)
        {
            return contradiction(format!(
                "the row of checkpoint `{}`, from which the run starts, is missing or differs",
                restore.checkpoint
            ));
        }
        Ok(())
    }

    /// The state of a run, if its row was added already.
    ///
    /// # Errors
    /// `Contradiction` for the row `key`, if the run's row is missing.
    fn loaded(&mut self, id: &RunId, key: &RowKey) -> Result<&mut RunState, StateError> {
        let run = self.runs.get_mut(id).filter(|run| run.state.generation > 0);
        let missing = || StateError::Contradiction {
            key: key.to_string(),
            detail: "the row of the run's state is missing".to_owned(),
        };
        run.map(|run| &mut run.state).ok_or_else(missing)
    }

    #[expect(clippy::too_many_lines, reason = "an arm for each kind of row")]
    fn add_row(&mut self, key: &RowKey, value: &[u8]) -> Result<(), StateError> {
        let contradiction =
            |detail: &str| StateError::Contradiction { key: key.to_string(), detail: detail.to_owned() };
        let orphan = || contradiction("the row of the run's submission is missing");
        match key {
            RowKey::Submission(id) => {
                let submission: Submission = decode(key, value)?;
                if submission.id != *id {
                    return Err(contradiction(&format!("it belongs to run `{}`", submission.id)));
                }
                let job = JobSpec::from_canonical(submission.job.as_bytes())
                    .map_err(|error| contradiction(&format!("its job is invalid: {error}")))?;
                let mut run = Run::new(submission, job);
                run.state.generation = 0; // Until the run's own row is added.
                self.add_run(run);
            }
            RowKey::Run(id) => {
                let run = self.runs.get_mut(id).ok_or_else(orphan)?;
                let state: RunState = decode(key, value)?;
                if state.generation == 0 {
                    return Err(contradiction("its generation is 0"));
                }
                run.state = state;
            }
            RowKey::Archived(id) => {
                if self.runs.contains_key(id) {
                    return Err(contradiction("the run has other rows, too, so it is not archived"));
                }
                let run: ArchivedRun = decode(key, value)?;
                self.index(run.number, id, &run.name, run.is_replay);
                self.archived.insert(id.clone(), run);
            }
            RowKey::Measured(id) => self.loaded(id, key)?.measured = decode(key, value)?,
            RowKey::Progress(id) => {
                let RunProgress { progress, heard_at_ms } = decode(key, value)?;
                let state = self.loaded(id, key)?;
                (state.progress, state.heard_at_ms) = (progress, heard_at_ms);
            }
            RowKey::Process(id, process) => {
                let placed: ProcessState = decode(key, value)?;
                self.loaded(id, key)?.placement.insert(*process, placed);
            }
            RowKey::Reported(id, process) => {
                let placed = self.loaded(id, key)?.placement.get_mut(process);
                let placed = placed.ok_or_else(|| contradiction("the row of the process is missing"))?;
                placed.sequence = decode(key, value)?;
            }
            RowKey::Checkpoint(id, step) => {
                let checkpoint: Checkpoint = decode(key, value)?;
                if checkpoint.step != *step {
                    return Err(contradiction(&format!("its checkpoint is of step {}", checkpoint.step)));
                }
                if !self.runs.contains_key(id) && !self.archived.contains_key(id) {
                    return Err(orphan());
                }
                self.add_checkpoint(id, checkpoint);
            }
            RowKey::Share(id, step, process) => {
                let share: Piece = decode(key, value)?;
                self.runs.get_mut(id).ok_or_else(orphan)?.shares.insert((*step, *process), share);
            }
            RowKey::Node(id) => {
                let node: Node = decode(key, value)?;
                if node.id != *id {
                    return Err(contradiction(&format!("it belongs to node `{}`", node.id)));
                }
                self.nodes.insert(id.clone(), node);
            }
            RowKey::Request(id) => {
                let answered: Answered = decode(key, value)?;
                self.requests.insert(id.clone(), answered);
            }
            RowKey::Owed(id, step) => {
                let owed: Owed = decode(key, value)?;
                self.runs.get_mut(id).ok_or_else(orphan)?.owed.insert(*step, owed);
            }
            RowKey::Retries => self.retries = decode(key, value)?,
        }
        Ok(())
    }
}

fn decode<T: DeserializeOwned>(key: &RowKey, bytes: &[u8]) -> Result<T, StateError> {
    formats::decode(bytes).map_err(|source| StateError::Value { key: key.to_string(), source })
}
