//! A report: what a process said, through its agent.

use lockstep_common::NodeId;
use serde::{Deserialize, Serialize};

/// The agent that brought a report, as the coordinator knows it from its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messenger {
    /// The node that it joined as.
    pub node: NodeId,
    /// Drawn at the agent's start: another one means that all its earlier processes are gone.
    pub incarnation: String,
}
