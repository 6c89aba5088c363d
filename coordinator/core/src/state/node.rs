//! A node: a machine whose agent has joined.

use std::collections::BTreeMap;
use std::fmt;

use lockstep_common::{NodeId, RunId};
use serde::{Deserialize, Deserializer, Serialize};

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

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its agent's incarnation.
    pub incarnation: String,
    /// Names its agent's data directory; empty for an agent that has none.
    #[serde(default)]
    pub agent: String,
    /// Host name, for people.
    pub host: String,
    /// One process fits on each.
    pub devices: Vec<Device>,
    /// Whether it is there. Earlier builds wrote a truth: whether its agent is heard.
    #[serde(alias = "alive", deserialize_with = "presence")]
    pub presence: Presence,
    /// Index of the log entry with which it joined last.
    #[serde(default)]
    pub joined: u64,
    /// Since when it is there, or is not: milliseconds since the epoch.
    pub changed_at_ms: u64,
    /// Devices that get no process, by name: CPU slots of a node share its processor and memory, and so one name.
    pub fences: BTreeMap<String, Fence>,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Its agent is connected: it takes work.
    Alive,
    /// Its agent's stream has ended, and its lease has not. Its processes go on.
    Detached,
    /// Its agent ends, and stops its processes.
    Leaving,
    /// Its agent has ended as it said.
    Gone,
    /// It was silent for longer than its lease.
    Lost,
}

impl Presence {
    /// Whether its processes may be running.
    pub fn may_run(self) -> bool {
        matches!(self, Self::Alive | Self::Detached | Self::Leaving)
    }

    /// As `coord nodes` and the API write it.
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

/// Why a device gets no process, until a person gives it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Since when, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The run whose state it got wrong, and the step at which that was found; `None`: by hand.
    pub wrong: Option<(RunId, u64)>,
}
