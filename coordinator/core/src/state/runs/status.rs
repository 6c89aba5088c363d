//! A run's status: what people are told in a word and a reason.

use std::fmt;

use lockstep_common::Digest;
use serde::{Deserialize, Serialize};

/// A run's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Waits for devices.
    Queued {
        /// What for, for people.
        reason: String,
    },
    /// Placed; not all processes are ready.
    Starting,
    /// Trains.
    Running,
    /// Made its last step.
    Finished {
        /// Digest of the final state.
        state: Digest,
    },
    /// Ended before its last step.
    Failed {
        /// Why.
        reason: String,
    },
    /// Ended by a client.
    Cancelled,
    /// Made its last step, and could not save its last checkpoint: the final state is lost.
    Unsaved {
        /// Digest of the final state.
        state: Digest,
        /// Why.
        reason: String,
    },
}

impl Status {
    /// Whether nothing will change it any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed { .. } | Self::Cancelled | Self::Unsaved { .. })
    }

    /// Its one-word name.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Finished { .. } => "finished",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Unsaved { .. } => "unsaved",
        }
    }

    /// Why it is queued, failed or not saved.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Queued { reason } | Self::Failed { reason } | Self::Unsaved { reason, .. } => Some(reason),
            Self::Starting | Self::Running | Self::Finished { .. } | Self::Cancelled => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}: {reason}", self.word()),
            None => f.write_str(self.word()),
        }
    }
}
