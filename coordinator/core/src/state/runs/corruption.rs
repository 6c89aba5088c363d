//! Replicas that were found to differ, and who was wrong.

use lockstep_common::NodeId;
use serde::{Deserialize, Serialize};

/// Replicas that were found to differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corruption {
    /// When it was found, in milliseconds since the epoch.
    pub at_ms: u64,
    /// In which generation.
    pub generation: u64,
    /// Steps completed when it was found.
    pub step: u64,
    /// The last step at which all agreed, or where the generation began.
    pub agreed: u64,
    /// The first tensors that differ, in the order of a forward pass; empty if it could not be learned.
    pub tensors: Vec<String>,
    /// What each process had, by number.
    pub claims: Vec<Claim>,
    /// What each rank computed in the steps since `agreed`, step by step; dropped once there is a verdict.
    pub trail: Vec<u64>,
    /// Who was wrong, once that is known.
    pub verdict: Option<Verdict>,
}

/// What one process had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its node.
    pub node: NodeId,
    /// Its device: index into [`crate::state::Node::devices`].
    pub device: u32,
    /// The device's name.
    pub device_name: String,
    /// What all its tensors came to.
    pub fingerprint: u64,
}

/// Who was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Indices of the claims that were wrong; empty if the repeated steps matched no claim.
    pub wrong: Vec<u32>,
    /// How that is known.
    pub grounds: Grounds,
}

/// How it is known who was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grounds {
    /// More than half of the processes agreed.
    Majority,
    /// The steps were repeated, and this process was the first that differed from them, in a rank's result or in its state.
    Replay,
    /// The steps were repeated, and this device was the first whose results differed from its own earlier ones.
    Unstable,
}

impl Corruption {
    /// The devices that the verdict names.
    pub(in crate::state) fn devices_wrong(&self) -> Vec<(NodeId, String)> {
        let wrong = self.verdict.as_ref().map_or(&[][..], |verdict| &verdict.wrong);
        let claims = wrong.iter().filter_map(|&index| self.claims.get(index as usize));
        claims.map(|claim| (claim.node.clone(), claim.device_name.clone())).collect()
    }
}
