//! Corruptions: replicas that differ, and the verdict which of them are wrong.

use lockstep_common::NodeId;
use serde::{Deserialize, Serialize};

/// Replicas of one state that differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corruption {
    /// Time at which the difference was confirmed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The generation whose replicas differ.
    pub generation: u64,
    /// Number of completed steps when the difference was found.
    pub step: u64,
    /// The last step after which all replicas were equal, or the step that the generation started from.
    pub agreed: u64,
    /// The first 20 tensors that differ, in the order of the forward pass; empty if unknown.
    pub tensors: Vec<String>,
    /// The state of each process, by process index.
    pub claims: Vec<Claim>,
    /// One number for each rank's result of each step after `agreed`, step by step; empty once there is a verdict.
    pub trail: Vec<u64>,
    /// Which claims are wrong; `None` until that is known.
    pub verdict: Option<Verdict>,
}

/// The state that one process reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The node of the process.
    pub node: NodeId,
    /// Index in [`crate::state::Node::devices`].
    pub device: u32,
    /// `cpu` or `cuda:N`.
    pub device_name: String,
    /// Fingerprint of the process's state.
    pub fingerprint: u64,
}

/// The decision which claims are wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Indices of the wrong claims; empty if the re-run matched no claim.
    pub wrong: Vec<u32>,
    /// The evidence for the decision.
    pub grounds: Grounds,
}

/// The evidence for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grounds {
    /// More than half of the processes had the same fingerprint.
    Majority,
    /// The steps were re-run, and the wrong process was the first to differ from the re-run, in a rank's result or in its state.
    Replay,
    /// The steps were re-run, and the wrong device was the first whose results differed from its own earlier ones.
    Unstable,
}

impl Corruption {
    /// Node and name of each device with a wrong claim; empty without a verdict.
    pub(in crate::state) fn devices_wrong(&self) -> Vec<(NodeId, String)> {
        let wrong = self.verdict.as_ref().map_or(&[][..], |verdict| &verdict.wrong);
        let claims = wrong.iter().filter_map(|&index| self.claims.get(index as usize));
        claims.map(|claim| (claim.node.clone(), claim.device_name.clone())).collect()
    }
}
