//! How a process ended, in one word.
//!
//! The process or its agent names it, the protocol carries it, and the coordinator judges it in one place
//! (`coordinator/core/src/state/ending.rs`): what is nobody's fault costs nothing, what may pass is tried again some times, and
//! what would come again ends the run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Exit code of a process that gives up because others are gone.
pub const EXIT_PEERS_GONE: i32 = 10;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It made its last step.
    Finished,
    /// Other processes of its generation are gone.
    PeersGone,
    /// It was told to stop, because it is wanted no longer.
    Dismissed,
    /// Its node leaves: its agent was told to end.
    NodeLeaving,
    /// It ended without a word of why.
    Crashed {
        /// Exit code, or 128 + signal.
        code: i32,
    },
    /// It gave up for a reason that may pass: a device, the memory, a disk or the network.
    Transient {
        /// The reason in its own words, for people: first what failed, then what it said.
        what: String,
    },
    /// It gave up for a reason that would come again.
    Permanent {
        /// The reason in its own words, for people; it becomes the run's.
        what: String,
    },
}

impl Ending {
    /// What the exit code says of a process that said nothing itself.
    pub fn of_code(code: i32) -> Self {
        if code == EXIT_PEERS_GONE { Self::PeersGone } else { Self::Crashed { code } }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::PeersGone => f.write_str("gave up because others were gone"),
            Self::Dismissed => f.write_str("was told to stop"),
            Self::NodeLeaving => f.write_str("was stopped because its node leaves"),
            Self::Crashed { code } => write!(f, "ended with code {code}"),
            Self::Transient { what } => write!(f, "gave up for a reason that may pass: {what}"),
            Self::Permanent { what } => write!(f, "gave up: {what}"),
        }
    }
}
