//! A node: a machine whose agent has joined.

use lockstep_common::NodeId;
use serde::{Deserialize, Serialize};

use crate::command::Device;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its agent's incarnation.
    pub incarnation: String,
    /// Host name, for people.
    pub host: String,
    /// One process fits on each.
    pub devices: Vec<Device>,
    /// Whether its agent is heard; nothing is placed on a node that is not.
    pub alive: bool,
    /// When it joined, or was lost: milliseconds since the epoch.
    pub changed_at_ms: u64,
}
