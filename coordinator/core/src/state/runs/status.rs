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

/// A status without what comes with it: a word in documents, which `coord` and the page act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are the statuses")]
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
    /// All, in the order of a run's life.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Starting, Self::Running, Self::Finished, Self::Failed, Self::Cancelled, Self::Unsaved];

    /// Whether nothing will change it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Cancelled | Self::Unsaved)
    }

    /// As documents write it.
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
    /// Whether nothing will change it any more.
    pub fn is_final(&self) -> bool {
        self.kind().is_final()
    }

    /// Without what comes with it.
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
            // As earlier builds wrote it in rows: a text.
            assert_eq!(crate::formats::encode(&kind), crate::formats::encode(&kind.word()));
        }
    }
}
