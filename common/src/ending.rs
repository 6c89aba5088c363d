//! How a process ended.
//!
//! The process or its agent reports the ending, and the coordinator decides its consequence in one place
//! (`coordinator/core/src/state/ending.rs`). An ending that is nobody's fault counts for nothing. A transient ending is retried a
//! limited number of times. A permanent ending fails the run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Exit code of a process that stops because it lost its peers: other processes of its generation ended.
pub const EXIT_PEERS_GONE: i32 = 10;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It completed the run's last step.
    Finished,
    /// It stopped because other processes of its generation ended.
    PeersGone,
    /// Its agent stopped it because the node's desired state no longer contains it.
    Dismissed,
    /// Its agent stopped it because the agent itself was told to end.
    NodeLeaving,
    /// It ended without reporting a reason.
    Crashed {
        /// Exit code, or 128 + signal.
        code: i32,
    },
    /// It failed for a reason that a retry may not meet again: a device, memory, a disk or the network.
    Transient {
        /// The error message: first what failed, then its cause.
        what: String,
    },
    /// It failed for a reason that every retry would meet again.
    Permanent {
        /// The error message; it becomes the reason why the run failed.
        what: String,
    },
}

impl Ending {
    /// The ending of a process that reported none, from its exit code.
    pub fn of_code(code: i32) -> Self {
        if code == EXIT_PEERS_GONE { Self::PeersGone } else { Self::Crashed { code } }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::PeersGone => f.write_str("stopped because it lost its peers"),
            Self::Dismissed => f.write_str("was told to stop"),
            Self::NodeLeaving => f.write_str("was stopped because its node is leaving"),
            Self::Crashed { code } => write!(f, "ended with code {code}"),
            Self::Transient { what } => write!(f, "failed with a transient error: {what}"),
            Self::Permanent { what } => write!(f, "failed: {what}"),
        }
    }
}
