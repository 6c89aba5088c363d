//! A node: a machine whose agent has joined.

use std::collections::BTreeMap;

use lockstep_common::{NodeId, RunId};
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
    /// Devices that get no process, by name: CPU slots of a node share its processor and memory, and so one name.
    pub fences: BTreeMap<String, Fence>,
}

/// Why a device gets no process, until a person gives it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Since when, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The run whose state it got wrong, and the step at which that was found; `None`: by hand.
    pub wrong: Option<(RunId, u64)>,
}
