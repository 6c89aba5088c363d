//! Nodes: machines whose agents have joined.

use std::collections::BTreeMap;
use std::fmt;

use lockstep_common::{NodeId, RunId};
use serde::{Deserialize, Deserializer, Serialize};

/// A device of a node: room for one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `cpu` (once per CPU slot) or `cuda:N`.
    pub name: String,
    /// Model name of the processor or GPU.
    pub model: String,
    /// Total memory of the device.
    pub memory_bytes: u64,
}

/// A machine whose agent has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name of the node: `worker --name`.
    pub id: NodeId,
    /// Random id of the agent's start. If it changes, all earlier processes of the node have ended.
    pub incarnation: String,
    /// Id of the agent's data directory; empty if the agent has none.
    #[serde(default)]
    pub agent: String,
    /// Host name of the machine.
    pub host: String,
    /// Devices, each with room for one process.
    pub devices: Vec<Device>,
    /// Whether the agent is connected, and otherwise why not. Early builds stored a boolean `alive`.
    #[serde(alias = "alive", deserialize_with = "presence")]
    pub presence: Presence,
    /// Index of the log entry of the last `NodeJoined`.
    #[serde(default)]
    pub joined: u64,
    /// Time of the last change of `presence`, in milliseconds since the Unix epoch.
    pub changed_at_ms: u64,
    /// Devices that get no process, by name. All CPU slots of a node have the name `cpu` and are fenced together, because they share the
    /// processor and memory.
    pub fences: BTreeMap<String, Fence>,
}

/// State of a node's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// The agent is connected: the node gets work.
    Alive,
    /// The agent's stream has ended, but the lease has not. The processes continue.
    Detached,
    /// The agent is about to end, and stops its processes.
    Leaving,
    /// The agent has ended as announced.
    Gone,
    /// The agent was silent for longer than its lease.
    Lost,
}

impl Presence {
    /// Whether processes of the node may be running.
    pub fn may_run(self) -> bool {
        matches!(self, Self::Alive | Self::Detached | Self::Leaving)
    }

    /// Name in `coord nodes` and in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Detached => "detached",
            Self::Leaving => "leaving",
            Self::Gone => "gone",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

fn presence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Presence, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Alive(bool),
        Presence(Presence),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Alive(true) => Presence::Alive,
        Written::Alive(false) => Presence::Lost,
        Written::Presence(presence) => presence,
    })
}

/// A fence: the device gets no process until a user runs `coord unfence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Time of the fence, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run that the device computed wrongly, and the step at which the corruption was found; `None` if a user fenced the device.
    pub wrong: Option<(RunId, u64)>,
}
