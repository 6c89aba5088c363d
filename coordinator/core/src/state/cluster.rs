//! The whole state, its accessors, and the set of changed rows.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::manifest::Piece;
use lockstep_common::{Digest, NodeId, RequestId, RunId};

use super::node::Node;
use super::reports::Progress;
use super::requests::{Answered, Requests};
use super::retries::Retries;
use super::row_key::RowKey;
use super::runs::{ArchivedRun, Checkpoint, Measured, ProcessState, Run};
use crate::outcome::Refusal;
use crate::placement::DeviceKind;

/// The replicated state: the result of all applied commands.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) archived: BTreeMap<RunId, ArchivedRun>,
    /// All runs, also archived ones, sorted by number for binary search.
    pub(super) numbers: Vec<(u64, RunId)>,
    /// Names of all runs except replays, which have the name of their original run.
    pub(super) names: BTreeSet<(String, RunId)>,
    /// Run and step of each committed checkpoint.
    pub(super) checkpoints: BTreeMap<Digest, (RunId, u64)>,
    pub(super) requests: Requests,
    /// Limits of retries, for all runs.
    pub(super) retries: Retries,
    /// Keys of rows that changed since the last `take_changes`.
    pub(super) changed: BTreeSet<RowKey>,
}

impl ClusterState {
    /// Runs that are not archived, in the order of submission.
    pub fn runs(&self) -> Vec<&Run> {
        let mut runs: Vec<&Run> = self.runs.values().collect();
        runs.sort_by_key(|run| run.submission.number);
        runs
    }

    /// Numbers and ids of runs, also archived ones, in the order of submission: the last `limit` runs before number `before`.
    pub fn listed(&self, before: u64, limit: usize) -> &[(u64, RunId)] {
        let end = self.older_than(before);
        &self.numbers[end.saturating_sub(limit)..end]
    }

    /// Number of runs that were submitted before number `number`.
    pub fn older_than(&self, number: u64) -> usize {
        self.numbers.partition_point(|(at, _)| *at < number)
    }

    /// The run with this id; `None` if it does not exist or is archived.
    pub fn run(&self, id: &RunId) -> Option<&Run> {
        self.runs.get(id)
    }

    /// All nodes that joined and were not removed, sorted by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node with this name; `None` if it never joined or was removed.
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Limits of retries, for all runs.
    pub fn retries(&self) -> Retries {
        self.retries
    }

    /// A committed checkpoint, and the kind of device that its run trained on.
    ///
    /// # Errors
    /// `NoCheckpoint` if there is none with this id.
    pub fn checkpoint(&self, id: &Digest) -> Result<(Option<DeviceKind>, &Checkpoint), Refusal> {
        let found = self.checkpoints.get(id).and_then(|(run, step)| match self.runs.get(run) {
            Some(run) => Some((run.state.kind, run.checkpoints.get(step)?)),
            None => self.archived.get(run).and_then(|run| Some((run.kind, run.checkpoint(*step)?))),
        });
        found.ok_or_else(|| Refusal::NoCheckpoint(id.to_string()))
    }

    /// The run that occupies this device, and the index of its process there.
    pub fn occupant(&self, node: &NodeId, device: u32) -> Option<(&Run, u32)> {
        self.runs.values().filter(|run| !run.state.status.is_final()).find_map(|run| {
            let here = |placed: &super::ProcessState| placed.node == *node && placed.device == device;
            run.state.placement.iter().find(|(_, placed)| here(placed)).map(|(&process, _)| (run, process))
        })
    }

    /// The stored answer to a request.
    pub(crate) fn request(&self, id: &RequestId) -> Option<&Answered> {
        self.requests.get(id)
    }

    /// Stores the answer to a request, and removes the oldest one if there are too many.
    pub(crate) fn remember(&mut self, id: &RequestId, answered: Answered) {
        self.changed.insert(RowKey::Request(id.clone()));
        if let Some(forgotten) = self.requests.insert(id.clone(), answered) {
            self.changed.insert(RowKey::Request(forgotten));
        }
    }

    pub(crate) fn set_retries(&mut self, retries: Retries) {
        if self.retries != retries {
            self.retries = retries;
            self.changed.insert(RowKey::Retries);
        }
    }

    /// As [`ClusterState::run`], for changes: marks the run's row as changed.
    pub(crate) fn run_mut(&mut self, id: &RunId) -> Option<&mut Run> {
        let run = self.runs.get_mut(id)?;
        self.changed.insert(RowKey::Run(id.clone()));
        Some(run)
    }

    /// Adds a run to the state and to the indexes of numbers and names.
    pub(super) fn add_run(&mut self, run: Run) {
        self.index(run.submission.number, run.id(), &run.job.name, run.submission.replay.is_some());
        self.runs.insert(run.id().clone(), run);
    }

    /// Adds a run to the indexes of numbers and names.
    pub(super) fn index(&mut self, number: u64, id: &RunId, name: &str, is_replay: bool) {
        // A new run has the greatest number. `with_rows` adds runs in another order, and sorts them afterwards.
        self.numbers.push((number, id.clone()));
        if !is_replay {
            self.names.insert((name.to_owned(), id.clone()));
        }
    }

    /// A process of a run, for changes: marks its row as changed. [`ClusterState::heard`] changes its sequence number.
    pub(super) fn process_mut(&mut self, id: &RunId, process: u32) -> Option<&mut ProcessState> {
        let placed = self.runs.get_mut(id)?.state.placement.get_mut(&process)?;
        self.changed.insert(RowKey::Process(id.clone(), process));
        Some(placed)
    }

    /// The measurements of a run, for changes: marks their row as changed.
    pub(super) fn measured_mut(&mut self, id: &RunId) -> Option<&mut Measured> {
        let run = self.runs.get_mut(id)?;
        self.changed.insert(RowKey::Measured(id.clone()));
        Some(&mut run.state.measured)
    }

    /// Marks the rows of all processes of a run as changed. Must be called before processes are removed, and after they are added.
    pub(super) fn placement_changed(&mut self, id: &RunId) {
        let Some(run) = self.runs.get(id) else { return };
        for &process in run.state.placement.keys() {
            self.changed.extend([RowKey::Process(id.clone(), process), RowKey::Reported(id.clone(), process)]);
        }
    }

    /// Stores the time and the sequence number of a report.
    pub(crate) fn heard(&mut self, at_ms: u64, id: &RunId, process: u32, sequence: u64) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.state.heard_at_ms = at_ms;
        if let Some(placed) = run.state.placement.get_mut(&process) {
            placed.sequence = sequence;
        }
        self.changed.extend([RowKey::Progress(id.clone()), RowKey::Reported(id.clone(), process)]);
    }

    /// Stores the progress of a run.
    pub(super) fn progressed(&mut self, id: &RunId, progress: Progress) {
        if let Some(run) = self.runs.get_mut(id) {
            run.state.progress = Some(progress);
            self.changed.insert(RowKey::Progress(id.clone()));
        }
    }

    /// Adds a committed checkpoint to its run, which may be archived.
    pub(super) fn add_checkpoint(&mut self, id: &RunId, made: Checkpoint) {
        let (step, digest) = (made.step, made.id);
        if let Some(run) = self.runs.get_mut(id) {
            run.checkpoints.insert(step, made);
        } else if let Some(run) = self.archived.get_mut(id) {
            run.add_checkpoint(made);
        } else {
            return;
        }
        self.changed.insert(RowKey::Checkpoint(id.clone(), step));
        self.checkpoints.insert(digest, (id.clone(), step));
    }

    /// Adds or replaces one process's share of a checkpoint.
    pub(super) fn add_share(&mut self, id: &RunId, step: u64, process: u32, blob: Piece) {
        if let Some(run) = self.runs.get_mut(id) {
            self.changed.insert(RowKey::Share(id.clone(), step, process));
            run.shares.insert((step, process), blob);
        }
    }

    pub(super) fn drop_share(&mut self, id: &RunId, step: u64, process: u32) {
        if let Some(run) = self.runs.get_mut(id)
            && run.shares.remove(&(step, process)).is_some()
        {
            self.changed.insert(RowKey::Share(id.clone(), step, process));
        }
    }

    /// Removes the shares of a run's checkpoints whose step satisfies `which`.
    pub(super) fn drop_shares(&mut self, id: &RunId, which: impl Fn(u64) -> bool) {
        if let Some(run) = self.runs.get_mut(id) {
            let gone = run.shares.keys().filter(|(step, _)| which(*step));
            self.changed.extend(gone.map(|&(step, process)| RowKey::Share(id.clone(), step, process)));
            run.shares.retain(|(step, _), _| !which(*step));
        }
    }
}
