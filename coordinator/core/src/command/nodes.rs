//! Nodes and their devices.

use serde::{Deserialize, Serialize};

/// A device of a node: room for one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `cpu` (as often as the agent offers slots) or `cuda:N`.
    pub name: String,
    /// What it is, for people.
    pub model: String,
    /// Its memory.
    pub memory_bytes: u64,
}
