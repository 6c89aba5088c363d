//! Nodes that join, go away for a while, leave, are lost and are forgotten.

use lockstep_common::{NodeId, RunId};

use super::cluster::ClusterState;
use super::node::{Node, Presence};
use super::rows::RowKey;
use super::runs::Phase;
use crate::command::Device;
use crate::outcome::{Effect, Outcome, Refusal};

/// Nodes that are kept. Each is in the state that is held in memory, and in every list of nodes.
pub const NODES: usize = 4096;

/// An agent that opened its stream.
pub(super) struct Joining<'a> {
    pub(super) node: &'a NodeId,
    pub(super) incarnation: &'a str,
    pub(super) agent: &'a str,
    pub(super) host: &'a str,
    pub(super) devices: &'a [Device],
}

impl Node {
    /// Whether another agent than this one asks for the node's name while the node's own may be there. Two with one data directory
    /// cannot live at a time on one host; two hosts have one only if it was copied, or lies on a shared disk.
    fn is_another(&self, incarnation: &str, agent: &str, host: &str) -> bool {
        let another = self.agent != agent || self.host != host;
        self.presence.may_run() && !self.agent.is_empty() && self.incarnation != incarnation && another
    }
}

impl ClusterState {
    pub(super) fn node_joined(
        &mut self,
        (index, at_ms): (u64, u64),
        joining: &Joining<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refusal> {
        let id = joining.node;
        if let Some(refusal) = self.name_taken(id, joining.incarnation, joining.agent, joining.host) {
            return Err(refusal);
        }
        if !self.nodes.contains_key(id) && self.nodes.len() >= NODES && !self.forget_oldest() {
            return Err(Refusal::TooManyNodes(NODES));
        }
        let known = self.nodes.get(id);
        let fences = known.map(|node| node.fences.clone()).unwrap_or_default();
        if known.is_some_and(|node| node.incarnation != joining.incarnation) {
            self.processes_gone(at_ms, id, effects);
        }
        let node = Node {
            id: id.clone(),
            incarnation: joining.incarnation.to_owned(),
            agent: joining.agent.to_owned(),
            host: joining.host.to_owned(),
            devices: joining.devices.to_vec(),
            presence: Presence::Alive,
            joined: index,
            changed_at_ms: at_ms,
            fences,
        };
        self.changed.insert(RowKey::Node(id.clone()));
        self.nodes.insert(id.clone(), node);
        self.place_queued();
        Ok(Outcome::Done)
    }

    /// Why an agent cannot have the name of `node` now: another one has it, and may be there.
    pub fn name_taken(&self, node: &NodeId, incarnation: &str, agent: &str, host: &str) -> Option<Refusal> {
        let known = self.nodes.get(node).filter(|known| known.is_another(incarnation, agent, host))?;
        Some(Refusal::NodeTaken { node: node.clone(), host: known.host.clone(), other: host.to_owned() })
    }

    /// The agent ends: what runs there goes on until it says how that ended.
    pub(super) fn node_leaving(&mut self, at_ms: u64, id: &NodeId, incarnation: &str) {
        if self.is_in(id, incarnation, &[Presence::Alive, Presence::Detached]) {
            self.set_presence(at_ms, id, Presence::Leaving);
        }
    }

    /// The agent's stream has ended. One that was leaving has stopped its processes.
    pub(super) fn node_detached(&mut self, at_ms: u64, id: &NodeId, joined: u64, effects: &mut Vec<Effect>) {
        match self.nodes.get(id).filter(|node| node.joined == joined).map(|node| node.presence) {
            Some(Presence::Alive) => self.set_presence(at_ms, id, Presence::Detached),
            Some(Presence::Leaving) => {
                self.set_presence(at_ms, id, Presence::Gone);
                self.processes_gone(at_ms, id, effects);
                self.place_queued();
            }
            Some(Presence::Detached | Presence::Gone | Presence::Lost) | None => {}
        }
    }

    pub(super) fn node_lost(&mut self, at_ms: u64, id: &NodeId, incarnation: &str, effects: &mut Vec<Effect>) {
        if self.is_in(id, incarnation, &[Presence::Alive, Presence::Detached, Presence::Leaving]) {
            self.set_presence(at_ms, id, Presence::Lost);
            self.processes_gone(at_ms, id, effects);
            self.place_queued();
        }
    }

    /// Forgets the node that has been away for longest, but for those with a fence. False if there is none.
    fn forget_oldest(&mut self) -> bool {
        let away = self.nodes.values().filter(|node| !node.presence.may_run() && node.fences.is_empty());
        let Some(oldest) = away.min_by_key(|node| node.changed_at_ms).map(|node| node.id.clone()) else { return false };
        self.nodes.remove(&oldest);
        self.changed.insert(RowKey::Node(oldest));
        true
    }

    pub(super) fn forget_node(&mut self, id: &NodeId) -> Result<Outcome, Refusal> {
        let node = self.nodes.get(id).ok_or_else(|| Refusal::NoNode(id.clone()))?;
        if node.presence.may_run() {
            return Err(Refusal::NodeThere { node: id.clone(), state: node.presence.word().to_owned() });
        }
        if !node.fences.is_empty() {
            return Err(Refusal::NodeFenced(id.clone()));
        }
        self.nodes.remove(id);
        self.changed.insert(RowKey::Node(id.clone()));
        Ok(Outcome::Done)
    }

    fn is_in(&self, id: &NodeId, incarnation: &str, presences: &[Presence]) -> bool {
        let node = self.nodes.get(id);
        node.is_some_and(|node| node.incarnation == incarnation && presences.contains(&node.presence))
    }

    fn set_presence(&mut self, at_ms: u64, id: &NodeId, presence: Presence) {
        if let Some(node) = self.nodes.get_mut(id) {
            (node.presence, node.changed_at_ms) = (presence, at_ms);
            self.changed.insert(RowKey::Node(id.clone()));
        }
    }

    /// No process runs on `node` any more. One that had finished has left all that it owed; a run that still needed
    /// another goes to its next generation.
    fn processes_gone(&mut self, at_ms: u64, node: &NodeId, effects: &mut Vec<Effect>) {
        let touched: Vec<RunId> = self
            .runs
            .values()
            .filter(|run| run.state.placement.values().any(|placed| placed.node == *node))
            .map(|run| run.id().clone())
            .collect();
        for id in touched {
            let Some(run) = self.run_mut(&id) else { continue };
            let mut needed = false;
            for placed in run.state.placement.values_mut().filter(|placed| placed.node == *node) {
                match &mut placed.phase {
                    Phase::Finished { exited, .. } => *exited = true,
                    Phase::Assigned | Phase::Ready => needed = true,
                }
            }
            if needed && !run.state.status.is_final() {
                self.leave_generation(at_ms, &id, effects);
            }
        }
    }
}
