//! Commands about nodes: an agent joins, announces its end, disconnects; a node is lost or removed.

use lockstep_common::{NodeId, RequestId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Device, Node, Presence};

/// An agent has connected: the node can get work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeJoined {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Name of the node: `worker --name`.
    pub node: NodeId,
    /// Random id of the agent's start. If it differs from the node's previous one, all earlier processes of the node have ended.
    pub incarnation: String,
    /// Id of the agent's data directory, which only one agent uses at a time; empty if the agent has none.
    #[serde(default)]
    pub agent: String,
    /// Host name of the machine.
    pub host: String,
    /// Devices, each with room for one process.
    pub devices: Vec<Device>,
}

/// An agent announces its end: the node gets no more work. Its processes count as running until the agent reports their ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeLeaving {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The node that leaves.
    pub node: NodeId,
    /// Incarnation of the agent that leaves; the command does nothing if the node has another one.
    pub incarnation: String,
}

/// An agent's stream has ended. The node's processes continue, but it gets no more work until its agent reconnects. If the node was
/// leaving, it is gone now, with its processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDetached {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The node that lost its stream.
    pub node: NodeId,
    /// Index of the log entry of that stream's `NodeJoined`. The command does nothing if the agent has joined again since.
    pub joined: u64,
}

/// Removes a node that is gone or lost, at a user's request, or by the leader after `forget_node_s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeForgotten {
    /// Id of the request; a repeated request is applied once (I4).
    pub request: RequestId,
    /// The node to remove.
    pub node: NodeId,
}

/// A node's lease has ended: all its processes count as ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeLost {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The node that was silent.
    pub node: NodeId,
    /// Incarnation of the silent agent; the command does nothing if the node has another one.
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
