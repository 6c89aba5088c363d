//! The state as rows: what a store keeps, and what a raft snapshot carries.
//!
//! A row is a key in plain text and a value in the encoding of [`crate::formats`] (a manifest's own bytes for a manifest). What changes often is
//! in rows of its own, so that a report rewrites one small row.

use std::collections::BTreeSet;
use std::fmt;

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::Manifest;
use lockstep_common::{Digest, NodeId, RequestId, RunId};
use serde::de::DeserializeOwned;

use super::cluster::ClusterState;
use super::node::Node;
use super::owed::Owed;
use super::requests::Answered;
use crate::command::Retries;
use crate::formats::{self, EncodingError, encode};

use super::runs::{Checkpoint, Run, RunState, Submission};
use lockstep_common::manifest::Share;

/// The key of a row. Its text form begins with the kind; numbers are padded, so that texts sort as numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// What a run began with.
    Submission(RunId),
    /// Where a run stands.
    Run(RunId),
    /// A committed checkpoint of a run, by step.
    Checkpoint(RunId, u64),
    /// A share of a checkpoint, by step and process.
    Share(RunId, u64, u32),
    /// A node.
    Node(NodeId),
    /// A manifest.
    Manifest(Digest),
    /// A remembered request.
    Request(RequestId),
    /// A written checkpoint of a generation that has ended, by step.
    Owed(RunId, u64),
    /// How often runs are tried again; absent if nobody has said.
    Retries,
}

/// Rows that are no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not a key of a row.
    #[error("`{key}` is not the key of a row of the state")]
    Key {
        /// The key.
        key: String,
    },
    /// A value that cannot be read.
    #[error("the row `{key}` cannot be read")]
    Value {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: EncodingError,
    },
    /// A row that contradicts its key, or needs another row that is not there.
    #[error("the row `{key}` does not belong here: {detail}")]
    Contradiction {
        /// Its key.
        key: String,
        /// What is wrong.
        detail: String,
    },
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submission(run) => write!(f, "submission/{run}"),
            Self::Run(run) => write!(f, "run/{run}"),
            Self::Checkpoint(run, step) => write!(f, "checkpoint/{run}/{step:020}"),
            Self::Share(run, step, process) => write!(f, "share/{run}/{step:020}/{process:010}"),
            Self::Node(node) => write!(f, "node/{node}"),
            Self::Manifest(digest) => write!(f, "manifest/{digest}"),
            Self::Request(request) => write!(f, "request/{request}"),
            Self::Owed(run, step) => write!(f, "owed/{run}/{step:020}"),
            Self::Retries => f.write_str("configuration/retries"),
        }
    }
}

impl RowKey {
    /// Reads the text form.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (kind, id) = (parts.next()?, parts.next()?);
        let mut part = || parts.next();
        let key = match kind {
            "submission" => Self::Submission(id.parse().ok()?),
            "run" => Self::Run(id.parse().ok()?),
            "checkpoint" => Self::Checkpoint(id.parse().ok()?, part()?.parse().ok()?),
            "share" => Self::Share(id.parse().ok()?, part()?.parse().ok()?, part()?.parse().ok()?),
            "node" => Self::Node(id.parse().ok()?),
            "manifest" => Self::Manifest(id.parse().ok()?),
            "request" => Self::Request(id.parse().ok()?),
            "owed" => Self::Owed(id.parse().ok()?, part()?.parse().ok()?),
            "configuration" if id == "retries" => Self::Retries,
            _ => return None,
        };
        (key.to_string() == text).then_some(key)
    }
}

impl ClusterState {
    /// All rows, by key.
    pub fn rows(&self) -> Vec<(String, Vec<u8>)> {
        let mut keys = BTreeSet::new();
        for (id, run) in &self.runs {
            keys.extend([RowKey::Submission(id.clone()), RowKey::Run(id.clone())]);
            keys.extend(run.checkpoints.keys().map(|&step| RowKey::Checkpoint(id.clone(), step)));
            keys.extend(run.owed.keys().map(|&step| RowKey::Owed(id.clone(), step)));
            keys.extend(run.shares.keys().map(|&(step, process)| RowKey::Share(id.clone(), step, process)));
        }
        keys.extend(self.nodes.keys().cloned().map(RowKey::Node));
        keys.extend(self.manifests.keys().copied().map(RowKey::Manifest));
        keys.extend(self.requests.iter().map(|(request, _)| RowKey::Request(request.clone())));
        keys.extend((self.retries != Retries::default()).then_some(RowKey::Retries));
        keys.iter().filter_map(|key| Some((key.to_string(), self.row(key)?))).collect()
    }

    /// The rows that changed since the last call, each with its new value, or none if it is gone.
    pub fn take_changes(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().map(|key| (key.to_string(), self.row(key))).collect()
    }

    fn row(&self, key: &RowKey) -> Option<Vec<u8>> {
        match key {
            RowKey::Submission(run) => self.runs.get(run).map(|run| encode(&run.submission)),
            RowKey::Run(run) => self.runs.get(run).map(|run| encode(&run.state)),
            RowKey::Checkpoint(run, step) => self.runs.get(run)?.checkpoints.get(step).map(encode),
            RowKey::Share(run, step, process) => self.runs.get(run)?.shares.get(&(*step, *process)).map(encode),
            RowKey::Node(node) => self.nodes.get(node).map(encode),
            RowKey::Manifest(digest) => self.manifests.get(digest).cloned(),
            RowKey::Request(request) => self.requests.get(request).map(encode),
            RowKey::Owed(run, step) => self.runs.get(run)?.owed.get(step).map(encode),
            RowKey::Retries => (self.retries != Retries::default()).then(|| encode(&self.retries)),
        }
    }

    /// The state with these rows, in any order: what [`ClusterState::rows`] gave.
    ///
    /// # Errors
    /// `Key` or `Value` for bytes that are no row, `Contradiction` if rows do not belong together.
    pub fn from_rows(rows: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, StateError> {
        let parsed = rows.into_iter().map(|(text, value)| match RowKey::parse(&text) {
            Some(key) => Ok((key, value)),
            None => Err(StateError::Key { key: text }),
        });
        let mut rows: Vec<(RowKey, Vec<u8>)> = parsed.collect::<Result<_, _>>()?;
        // The order of the enum: a run's submission comes before all else of it.
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut state = Self::default();
        for (key, value) in rows {
            state.add_row(&key, value)?;
        }
        if let Some(run) = state.runs.values().find(|run| run.state.generation == 0) {
            let key = RowKey::Submission(run.id().clone()).to_string();
            return Err(StateError::Contradiction { key, detail: "the row of the run's state is missing".into() });
        }
        for run in state.runs.values() {
            state.check_checkpoints(run)?;
        }
        Ok(state)
    }

    /// Whether the checkpoints of `run` have their manifests, and the last one's is of this run, of its job and of that state. Each row may
    /// be as it was written, and be of another time than the others.
    fn check_checkpoints(&self, run: &Run) -> Result<(), StateError> {
        let contradiction = |key: RowKey, detail: &str| {
            Err(StateError::Contradiction { key: key.to_string(), detail: detail.to_owned() })
        };
        let missing = |id: &Digest| format!("the row of its manifest `{id}` is missing");
        for (&step, checkpoint) in &run.checkpoints {
            if !self.manifests.contains_key(&checkpoint.id) {
                return contradiction(RowKey::Checkpoint(run.id().clone(), step), &missing(&checkpoint.id));
            }
        }
        if let Some(restore) = run.state.restore.as_ref().filter(|from| !self.manifests.contains_key(&from.checkpoint))
        {
            return contradiction(RowKey::Run(run.id().clone()), &missing(&restore.checkpoint));
        }
        let Some((&step, last)) = run.checkpoints.last_key_value() else { return Ok(()) };
        let key = RowKey::Checkpoint(run.id().clone(), step);
        let Some(Ok(manifest)) = self.manifests.get(&last.id).map(|bytes| Manifest::decode(bytes)) else {
            return contradiction(key, &format!("its manifest `{}` cannot be read", last.id));
        };
        if manifest.run != *run.id() {
            return contradiction(key, &format!("its manifest is of run `{}`", manifest.run));
        }
        if manifest.job_text != run.submission.job {
            return contradiction(key, "its manifest is of another job than the run's");
        }
        if (manifest.step, last.step, manifest.state) != (step, step, last.state) {
            return contradiction(key, &format!("its manifest is of another state, at step {}", manifest.step));
        }
        Ok(())
    }

    fn add_row(&mut self, key: &RowKey, value: Vec<u8>) -> Result<(), StateError> {
        let contradiction =
            |detail: &str| StateError::Contradiction { key: key.to_string(), detail: detail.to_owned() };
        let orphan = || contradiction("the row of the run's submission is missing");
        match key {
            RowKey::Submission(id) => {
                let submission: Submission = decode(key, &value)?;
                if submission.id != *id {
                    return Err(contradiction("it is another run's"));
                }
                let job = JobSpec::from_canonical(submission.job.as_bytes())
                    .map_err(|error| contradiction(&format!("its job is refused: {error}")))?;
                let mut run = Run::new(submission, job, None, None);
                run.state.generation = 0; // Until its own row comes.
                self.runs.insert(id.clone(), run);
            }
            RowKey::Run(id) => {
                let run = self.runs.get_mut(id).ok_or_else(orphan)?;
                let state: RunState = decode(key, &value)?;
                if state.generation == 0 {
                    return Err(contradiction("there is no generation 0"));
                }
                run.state = state;
            }
            RowKey::Checkpoint(id, step) => {
                let checkpoint: Checkpoint = decode(key, &value)?;
                self.runs.get_mut(id).ok_or_else(orphan)?.checkpoints.insert(*step, checkpoint);
            }
            RowKey::Share(id, step, process) => {
                let share: Share = decode(key, &value)?;
                self.runs.get_mut(id).ok_or_else(orphan)?.shares.insert((*step, *process), share);
            }
            RowKey::Node(id) => {
                let node: Node = decode(key, &value)?;
                if node.id != *id {
                    return Err(contradiction("it is another node's"));
                }
                self.nodes.insert(id.clone(), node);
            }
            RowKey::Manifest(digest) => {
                if Manifest::id(&value) != *digest {
                    return Err(contradiction("it is not the digest of the manifest"));
                }
                self.manifests.insert(*digest, value);
            }
            RowKey::Request(id) => {
                let answered: Answered = decode(key, &value)?;
                self.requests.insert(id.clone(), answered);
            }
            RowKey::Owed(id, step) => {
                let owed: Owed = decode(key, &value)?;
                if Manifest::decode(&owed.manifest).ok().map(|manifest| manifest.step) != Some(*step) {
                    return Err(contradiction("it holds no manifest of that step"));
                }
                self.runs.get_mut(id).ok_or_else(orphan)?.owed.insert(*step, owed);
            }
            RowKey::Retries => self.retries = decode(key, &value)?,
        }
        Ok(())
    }
}

fn decode<T: DeserializeOwned>(key: &RowKey, bytes: &[u8]) -> Result<T, StateError> {
    formats::decode(bytes).map_err(|source| StateError::Value { key: key.to_string(), source })
}
