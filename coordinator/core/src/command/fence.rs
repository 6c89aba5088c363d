//! `Fence`: a person takes devices out of use, or gives them back.

use lockstep_common::{NodeId, RequestId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Fence};

/// A person takes a node's devices out of use, or gives them back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FenceDevices {
    /// However often it comes, it is applied once.
    pub request: RequestId,
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The node.
    pub node: NodeId,
    /// The devices with this name; `None`: all of the node.
    pub device: Option<String>,
    /// Out of use, or back.
    pub fenced: bool,
}

impl Apply for FenceDevices {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        for name in self.names(state)? {
            if self.fenced {
                state.fence(&self.node, &name, &Fence { at_ms: self.at_ms, wrong: None }, effects);
            } else {
                state.unfence(&self.node, &name);
            }
        }
        state.place_queued();
        Ok(Outcome::Done)
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request::change(&self.request, "Fence", &Self { at_ms: 0, ..self.clone() }))
    }
}

impl FenceDevices {
    /// The names of the devices that are meant, each once: those that the node has, and those that are fenced already.
    fn names(&self, state: &ClusterState) -> Result<Vec<String>, Refusal> {
        let id = &self.node;
        let node = state.node(id).ok_or_else(|| Refusal::NoDevice(format!("node `{id}`")))?;
        let known = node.devices.iter().map(|device| &device.name).chain(node.fences.keys());
        let meant = |name: &&String| self.device.as_ref().is_none_or(|device| device == *name);
        let mut names: Vec<String> = known.filter(meant).cloned().collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            let device = self.device.as_ref().map_or("device".to_owned(), |device| format!("device `{device}`"));
            return Err(Refusal::NoDevice(format!("{device} on node `{id}`")));
        }
        Ok(names)
    }
}
