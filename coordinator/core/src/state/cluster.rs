//! The whole state, how it is read, and the note of what changed.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::manifest::{Manifest, Share};
use lockstep_common::{Digest, NodeId, RunId};

use super::node::Node;
use super::requests::Requests;
use super::rows::RowKey;
use super::runs::Run;
use crate::command::Retries;
use crate::outcome::Refusal;

/// What the log has made of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Canonical bytes of every committed manifest.
    pub(super) manifests: BTreeMap<Digest, Vec<u8>>,
    pub(super) requests: Requests,
    /// How often runs are tried again.
    pub(super) retries: Retries,
    /// Rows that differ from what `take_changes` last gave.
    pub(super) changed: BTreeSet<RowKey>,
}

impl ClusterState {
    /// All runs, in the order of their submission.
    pub fn runs(&self) -> Vec<&Run> {
        let mut runs: Vec<&Run> = self.runs.values().collect();
        runs.sort_by_key(|run| run.submission.number);
        runs
    }

    /// The run with this id.
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

    /// The canonical bytes of a committed checkpoint's manifest.
    pub fn manifest(&self, checkpoint: &Digest) -> Option<&[u8]> {
        self.manifests.get(checkpoint).map(Vec::as_slice)
    }

    /// A committed checkpoint's manifest.
    pub(crate) fn decoded(&self, checkpoint: &Digest) -> Result<Manifest, Refusal> {
        let manifest = self.manifests.get(checkpoint).and_then(|bytes| Manifest::decode(bytes).ok());
        manifest.ok_or_else(|| Refusal::NoCheckpoint(checkpoint.to_string()))
    }

    /// Runs that have a process on this device.
    pub fn occupant(&self, node: &NodeId, device: u32) -> Option<(&Run, u32)> {
        self.runs.values().filter(|run| !run.state.status.is_final()).find_map(|run| {
            let here = |placed: &super::ProcessState| placed.node == *node && placed.device == device;
            run.state.placement.iter().find(|(_, placed)| here(placed)).map(|(&process, _)| (run, process))
        })
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

    /// Adds a share of a checkpoint.
    pub(super) fn add_share(&mut self, id: &RunId, process: u32, share: Share) {
        if let Some(run) = self.runs.get_mut(id) {
            self.changed.insert(RowKey::Share(id.clone(), share.step, process));
            run.shares.insert((share.step, process), share);
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
