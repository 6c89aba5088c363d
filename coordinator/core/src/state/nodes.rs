//! Changes of nodes: presence, removal and fences.

use lockstep_common::{NodeId, RunId};

use super::cluster::ClusterState;
use super::node::{Fence, Node, Presence};
use super::row_key::RowKey;
use super::runs::{ProcessPhase, Run};
use crate::outcome::{Effect, Refusal};

/// Maximum number of nodes, because all of them are in memory and in every list of nodes.
pub const NODES: usize = 4096;

impl Node {
    /// Whether the agent that requests this node's name is another one, while the node's own agent may be running. Two agents with the same
    /// data directory on one host are the same agent, because the directory is locked. On two hosts they are not: the directory was copied
    /// or is on a shared disk.
    fn is_another(&self, incarnation: &str, agent: &str, host: &str) -> bool {
        let another = self.agent != agent || self.host != host;
        self.presence.may_run() && !self.agent.is_empty() && self.incarnation != incarnation && another
    }
}

impl ClusterState {
    /// The refusal if an agent cannot have the name `node` now, because another agent uses it and may be running.
    pub fn name_taken(&self, node: &NodeId, incarnation: &str, agent: &str, host: &str) -> Option<Refusal> {
        let known = self.nodes.get(node).filter(|known| known.is_another(incarnation, agent, host))?;
        Some(Refusal::NodeTaken { node: node.clone(), host: known.host.clone(), other: host.to_owned() })
    }

    /// Makes room for `node`: if there are [`NODES`] other nodes, removes the one that has been away for longest.
    ///
    /// # Errors
    /// `TooManyNodes` if no node can be removed.
    pub(crate) fn make_room(&mut self, node: &NodeId) -> Result<(), Refusal> {
        let is_there = self.nodes.contains_key(node) || self.nodes.len() < NODES || self.forget_oldest();
        is_there.then_some(()).ok_or(Refusal::TooManyNodes(NODES))
    }

    pub(crate) fn put_node(&mut self, node: Node) {
        self.changed.insert(RowKey::Node(node.id.clone()));
        self.nodes.insert(node.id.clone(), node);
    }

    pub(crate) fn drop_node(&mut self, id: &NodeId) {
        self.nodes.remove(id);
        self.changed.insert(RowKey::Node(id.clone()));
    }

    /// Sets the presence of a node to gone or lost; its processes count as ended.
    pub(crate) fn node_gone(&mut self, at_ms: u64, id: &NodeId, presence: Presence, effects: &mut Vec<Effect>) {
        self.set_presence(at_ms, id, presence);
        self.processes_gone(id, effects);
        self.place_queued();
    }

    /// Removes the node without fences that has been gone or lost for longest. Returns `false` if there is none.
    fn forget_oldest(&mut self) -> bool {
        let away = self.nodes.values().filter(|node| !node.presence.may_run() && node.fences.is_empty());
        let Some(oldest) = away.min_by_key(|node| node.changed_at_ms).map(|node| node.id.clone()) else { return false };
        self.drop_node(&oldest);
        true
    }

    /// Whether the node has this incarnation and one of `presences`.
    pub(crate) fn is_in(&self, id: &NodeId, incarnation: &str, presences: &[Presence]) -> bool {
        let node = self.nodes.get(id);
        node.is_some_and(|node| node.incarnation == incarnation && presences.contains(&node.presence))
    }

    pub(crate) fn set_presence(&mut self, at_ms: u64, id: &NodeId, presence: Presence) {
        if let Some(node) = self.nodes.get_mut(id) {
            (node.presence, node.changed_at_ms) = (presence, at_ms);
            self.changed.insert(RowKey::Node(id.clone()));
        }
    }

    /// Marks all processes on `node` as ended. Finished processes had reported everything. A run with an unfinished process there goes to
    /// its next generation.
    pub(crate) fn processes_gone(&mut self, node: &NodeId, effects: &mut Vec<Effect>) {
        let touched: Vec<RunId> = self
            .runs
            .values()
            .filter(|run| run.state.placement.values().any(|placed| placed.node == *node))
            .map(|run| run.id().clone())
            .collect();
        for id in touched {
            let Some(run) = self.runs.get(&id) else { continue };
            let here = run.state.placement.iter().filter(|(_, placed)| placed.node == *node);
            let (here, is_final): (Vec<u32>, bool) =
                (here.map(|(process, _)| *process).collect(), run.state.status.is_final());
            let mut needed = false;
            for process in here {
                match self.process_mut(&id, process).map(|placed| &mut placed.phase) {
                    Some(ProcessPhase::Finished { exited, .. }) => *exited = true,
                    Some(ProcessPhase::Assigned | ProcessPhase::Ready) => needed = true,
                    None => {}
                }
            }
            if needed && !is_final {
                self.leave_generation(&id, effects);
            }
        }
    }

    /// Takes devices with this name out of use. Runs with a process on them go to their next generation.
    pub(crate) fn fence(&mut self, node: &NodeId, device: &str, fence: &Fence, effects: &mut Vec<Effect>) {
        let Some(found) = self.nodes.get_mut(node) else { return };
        found.fences.entry(device.to_owned()).or_insert_with(|| fence.clone());
        self.changed.insert(RowKey::Node(node.clone()));
        let here = |run: &&Run| {
            !run.state.status.is_final()
                && run.state.placement.values().any(|placed| placed.node == *node && placed.device_name == device)
        };
        let moved: Vec<RunId> = self.runs.values().filter(here).map(|run| run.id().clone()).collect();
        for run in moved {
            self.leave_generation(&run, effects);
        }
    }

    /// Removes the fence of the devices with this name.
    pub(crate) fn unfence(&mut self, node: &NodeId, device: &str) {
        if let Some(found) = self.nodes.get_mut(node) {
            found.fences.remove(device);
            self.changed.insert(RowKey::Node(node.clone()));
        }
    }
}
