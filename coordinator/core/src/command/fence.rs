//! `Fence`: takes devices out of use, or returns them to use.

use lockstep_common::{NodeId, RequestId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Fence};

/// Fences devices of a node, or removes their fences. Runs with a process on a fenced device go to their next generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FenceDevices {
    /// Id of the request; a repeated request is applied once (I4).
    pub request: RequestId,
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The node that has the devices.
    pub node: NodeId,
    /// `cpu` (all CPU slots) or `cuda:N`; `None`: all devices of the node.
    pub device: Option<String>,
    /// `true`: take out of use; `false`: return to use.
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
    /// Names of the selected devices, sorted and without duplicates. Includes fenced devices that the node no longer has.
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
