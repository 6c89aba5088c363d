//! The whole state, how it is read, and the note of what changed.

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

/// What the log has made of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Runs that have left for the archive.
    pub(super) archived: BTreeMap<RunId, ArchivedRun>,
    /// All runs, those in the archive too, in the order of their submission: how many were before a number is a binary search.
    pub(super) numbers: Vec<(u64, RunId)>,
    /// Their names, but for replays, which have the name of the run that they repeat.
    pub(super) names: BTreeSet<(String, RunId)>,
    /// Where each committed checkpoint is: its run, and its step.
    pub(super) checkpoints: BTreeMap<Digest, (RunId, u64)>,
    pub(super) requests: Requests,
    /// How often runs are tried again.
    pub(super) retries: Retries,
    /// Rows that differ from what `take_changes` last gave.
    pub(super) changed: BTreeSet<RowKey>,
}

impl ClusterState {
    /// Runs that are not in the archive, in the order of their submission.
    pub fn runs(&self) -> Vec<&Run> {
        let mut runs: Vec<&Run> = self.runs.values().collect();
        runs.sort_by_key(|run| run.submission.number);
        runs
    }

    /// All runs, also in the archive, each with its number, in the order of their submission: the last `limit` of those before number
    /// `before`.
    pub fn listed(&self, before: u64, limit: usize) -> &[(u64, RunId)] {
        let end = self.older_than(before);
        &self.numbers[end.saturating_sub(limit)..end]
    }

    /// How many runs were submitted before number `number`.
    pub fn older_than(&self, number: u64) -> usize {
        self.numbers.partition_point(|(at, _)| *at < number)
    }

    /// The run with this id; none if there is none, or if it is in the archive.
    pub fn run(&self, id: &RunId) -> Option<&Run> {
        self.runs.get(id)
    }

    /// All nodes that ever joined, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node with this name.
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// How often runs are tried again.
    pub fn retries(&self) -> Retries {
        self.retries
    }

    /// A committed checkpoint, and what the run that made it trained on.
    ///
    /// # Errors
    /// `NoCheckpoint`.
    pub fn checkpoint(&self, id: &Digest) -> Result<(Option<DeviceKind>, &Checkpoint), Refusal> {
        let found = self.checkpoints.get(id).and_then(|(run, step)| match self.runs.get(run) {
            Some(run) => Some((run.state.kind, run.checkpoints.get(step)?)),
            None => self.archived.get(run).and_then(|run| Some((run.kind, run.checkpoint(*step)?))),
        });
        found.ok_or_else(|| Refusal::NoCheckpoint(id.to_string()))
    }

    /// Runs that have a process on this device.
    pub fn occupant(&self, node: &NodeId, device: u32) -> Option<(&Run, u32)> {
        self.runs.values().filter(|run| !run.state.status.is_final()).find_map(|run| {
            let here = |placed: &super::ProcessState| placed.node == *node && placed.device == device;
            run.state.placement.iter().find(|(_, placed)| here(placed)).map(|(&process, _)| (run, process))
        })
    }

    /// A remembered request.
    pub(crate) fn request(&self, id: &RequestId) -> Option<&Answered> {
        self.requests.get(id)
    }

    /// Remembers a request, and forgets the oldest one beyond its limit.
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

    /// The run, to be changed.
    pub(crate) fn run_mut(&mut self, id: &RunId) -> Option<&mut Run> {
        let run = self.runs.get_mut(id)?;
        self.changed.insert(RowKey::Run(id.clone()));
        Some(run)
    }

    /// Adds a run, and notes it in the index that lists and names ask.
    pub(super) fn add_run(&mut self, run: Run) {
        self.index(run.submission.number, run.id(), &run.job.name, run.submission.replay.is_some());
        self.runs.insert(run.id().clone(), run);
    }

    /// Makes a run be found by its number, and by its name.
    pub(super) fn index(&mut self, number: u64, id: &RunId, name: &str, is_replay: bool) {
        // A new run has the greatest number; whoever reads rows, which come in another order, sorts afterwards.
        self.numbers.push((number, id.clone()));
        if !is_replay {
            self.names.insert((name.to_owned(), id.clone()));
        }
    }

    /// A process of a run, to be changed; its number of reports: [`ClusterState::heard`].
    pub(super) fn process_mut(&mut self, id: &RunId, process: u32) -> Option<&mut ProcessState> {
        let placed = self.runs.get_mut(id)?.state.placement.get_mut(&process)?;
        self.changed.insert(RowKey::Process(id.clone(), process));
        Some(placed)
    }

    /// What was measured of a run's processes, to be changed.
    pub(super) fn measured_mut(&mut self, id: &RunId) -> Option<&mut Measured> {
        let run = self.runs.get_mut(id)?;
        self.changed.insert(RowKey::Measured(id.clone()));
        Some(&mut run.state.measured)
    }

    /// Notes that a run has other processes, or is about to have none.
    pub(super) fn placement_changed(&mut self, id: &RunId) {
        let Some(run) = self.runs.get(id) else { return };
        for &process in run.state.placement.keys() {
            self.changed.extend([RowKey::Process(id.clone(), process), RowKey::Reported(id.clone(), process)]);
        }
    }

    /// A process has said its report `sequence`.
    pub(crate) fn heard(&mut self, at_ms: u64, id: &RunId, process: u32, sequence: u64) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.state.heard_at_ms = at_ms;
        if let Some(placed) = run.state.placement.get_mut(&process) {
            placed.sequence = sequence;
        }
        self.changed.extend([RowKey::Progress(id.clone()), RowKey::Reported(id.clone(), process)]);
    }

    /// How far a run is.
    pub(super) fn progressed(&mut self, id: &RunId, progress: Progress) {
        if let Some(run) = self.runs.get_mut(id) {
            run.state.progress = Some(progress);
            self.changed.insert(RowKey::Progress(id.clone()));
        }
    }

    /// Adds a committed checkpoint.
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

    /// Adds a share of a checkpoint.
    pub(super) fn add_share(&mut self, id: &RunId, step: u64, process: u32, blob: Piece) {
        if let Some(run) = self.runs.get_mut(id) {
            self.changed.insert(RowKey::Share(id.clone(), step, process));
            run.shares.insert((step, process), blob);
        }
    }

    /// Drops one share.
    pub(super) fn drop_share(&mut self, id: &RunId, step: u64, process: u32) {
        if let Some(run) = self.runs.get_mut(id)
            && run.shares.remove(&(step, process)).is_some()
        {
            self.changed.insert(RowKey::Share(id.clone(), step, process));
        }
    }

    /// Drops the shares of a run's checkpoints that `which` names by step.
    pub(super) fn drop_shares(&mut self, id: &RunId, which: impl Fn(u64) -> bool) {
        if let Some(run) = self.runs.get_mut(id) {
            let gone = run.shares.keys().filter(|(step, _)| which(*step));
            self.changed.extend(gone.map(|&(step, process)| RowKey::Share(id.clone(), step, process)));
            run.shares.retain(|(step, _), _| !which(*step));
        }
    }
}
