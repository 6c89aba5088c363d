//! Nodes: an agent joins, leaves, is away, is lost, and is forgotten.

use lockstep_common::{NodeId, RequestId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Device, Node, Presence};

/// An agent opened its stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeJoined {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The node's name.
    pub node: NodeId,
    /// Drawn at the agent's start. Another one than before: its processes are gone.
    pub incarnation: String,
    /// Names the agent's data directory, which one agent at a time uses; empty in agents that have none.
    #[serde(default)]
    pub agent: String,
    /// Host name, for people.
    pub host: String,
    /// One process fits on each.
    pub devices: Vec<Device>,
}

/// A node's agent is about to end: it gets no more work. What runs there goes on until the agent says how that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeLeaving {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The node.
    pub node: NodeId,
    /// The incarnation that leaves.
    pub incarnation: String,
}

/// A node's stream has ended. What runs there goes on, and nothing more is placed there until the node is back. A node
/// that was leaving has stopped its processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDetached {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The node.
    pub node: NodeId,
    /// Index of the log entry with which that stream's agent joined; one that has joined again since is there.
    pub joined: u64,
}

/// A person, or the leader after a time, forgets a node that is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeForgotten {
    /// However often it comes, it is applied once.
    pub request: RequestId,
    /// The node.
    pub node: NodeId,
}

/// A node was silent for longer than its lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeLost {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The node.
    pub node: NodeId,
    /// The incarnation that was silent; another one is not affected.
    pub incarnation: String,
}

impl Apply for NodeJoined {
    fn apply(&self, state: &mut ClusterState, index: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let Self { at_ms, node: id, incarnation, agent, host, devices } = self;
        if let Some(refusal) = state.name_taken(id, incarnation, agent, host) {
            return Err(refusal);
        }
        state.make_room(id)?;
        let known = state.node(id);
        let fences = known.map(|node| node.fences.clone()).unwrap_or_default();
        if known.is_some_and(|node| node.incarnation != *incarnation) {
            state.processes_gone(id, effects);
        }
        state.put_node(Node {
            id: id.clone(),
            incarnation: incarnation.clone(),
            agent: agent.clone(),
            host: host.clone(),
            devices: devices.clone(),
            presence: Presence::Alive,
            joined: index,
            changed_at_ms: *at_ms,
            fences,
        });
        state.place_queued();
        Ok(Outcome::Done)
    }
}

impl Apply for NodeLeaving {
    fn apply(&self, state: &mut ClusterState, _: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        if state.is_in(&self.node, &self.incarnation, &[Presence::Alive, Presence::Detached]) {
            state.set_presence(self.at_ms, &self.node, Presence::Leaving);
        }
        Ok(Outcome::Done)
    }
}

impl Apply for NodeDetached {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let node = state.node(&self.node).filter(|node| node.joined == self.joined);
        match node.map(|node| node.presence) {
            Some(Presence::Alive) => state.set_presence(self.at_ms, &self.node, Presence::Detached),
            Some(Presence::Leaving) => state.node_gone(self.at_ms, &self.node, Presence::Gone, effects),
            Some(Presence::Detached | Presence::Gone | Presence::Lost) | None => {}
        }
        Ok(Outcome::Done)
    }
}

impl Apply for NodeForgotten {
    fn apply(&self, state: &mut ClusterState, _: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let node = state.node(&self.node).ok_or_else(|| Refusal::NoNode(self.node.clone()))?;
        if node.presence.may_run() {
            return Err(Refusal::NodeThere { node: self.node.clone(), state: node.presence.word().to_owned() });
        }
        if !node.fences.is_empty() {
            return Err(Refusal::NodeFenced(self.node.clone()));
        }
        state.drop_node(&self.node);
        Ok(Outcome::Done)
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request::change(&self.request, "NodeForgotten", self))
    }
}

impl Apply for NodeLost {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        if state.is_in(&self.node, &self.incarnation, &[Presence::Alive, Presence::Detached, Presence::Leaving]) {
            state.node_gone(self.at_ms, &self.node, Presence::Lost, effects);
        }
        Ok(Outcome::Done)
    }
}
