//! A run's status.

use std::fmt;

use lockstep_common::Digest;
use serde::{Deserialize, Serialize};

/// A run's status, with its reason or result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The run waits for devices, for a pause to end, or for a checkpoint to be opened.
    Queued {
        /// What the run waits for, for users.
        reason: String,
    },
    /// The run is placed; not all processes are ready.
    Starting,
    /// The run trains, or writes its last checkpoint.
    Running,
    /// The run has completed its last step, and its last checkpoint is committed.
    Finished {
        /// Digest of the final state.
        state: Digest,
    },
    /// The run ended because of an error.
    Failed {
        /// Error message with its cause, for users.
        reason: String,
    },
    /// A client ended the run.
    Cancelled,
    /// The run has completed its last step, but could not save its last checkpoint: the final state is lost.
    Unsaved {
        /// Digest of the final state.
        state: Digest,
        /// Error message of the last checkpoint.
        reason: String,
    },
}

/// A status without its reason or result, as in documents. `coord` and the page depend on these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "`Status` explains them")]
pub enum StatusKind {
    Queued,
    Starting,
    Running,
    Finished,
    Failed,
    Cancelled,
    Unsaved,
}

impl StatusKind {
    /// All statuses, in the order of a run's life.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Starting, Self::Running, Self::Finished, Self::Failed, Self::Cancelled, Self::Unsaved];

    /// Whether the run has ended; the status never changes then.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Cancelled | Self::Unsaved)
    }

    /// Name in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unsaved => "unsaved",
        }
    }
}

impl fmt::Display for StatusKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Status {
    /// Whether the run has ended; the status never changes then.
    pub fn is_final(&self) -> bool {
        self.kind().is_final()
    }

    /// The status without its reason or result.
    pub fn kind(&self) -> StatusKind {
        match self {
            Self::Queued { .. } => StatusKind::Queued,
            Self::Starting => StatusKind::Starting,
            Self::Running => StatusKind::Running,
            Self::Finished { .. } => StatusKind::Finished,
            Self::Failed { .. } => StatusKind::Failed,
            Self::Cancelled => StatusKind::Cancelled,
            Self::Unsaved { .. } => StatusKind::Unsaved,
        }
    }

    /// The reason of a run that is queued, failed or unsaved.
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
            Some(reason) => write!(f, "{}: {reason}", self.kind()),
            None => self.kind().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_as_its_word_wherever_it_is_written() {
        for kind in StatusKind::ALL {
            let word = format!("\"{}\"", kind.word());
            assert_eq!(serde_json::to_string(&kind).unwrap(), word);
            assert_eq!(serde_json::from_str::<StatusKind>(&word).unwrap(), kind);
            // Earlier builds encoded a status in rows as a string.
            assert_eq!(crate::formats::encode(&kind), crate::formats::encode(&kind.word()));
        }
    }
}
