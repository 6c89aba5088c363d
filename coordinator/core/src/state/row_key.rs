//! Keys of the state's rows, and errors in rows.

use std::fmt;

use lockstep_common::{NodeId, RequestId, RunId};

use crate::formats::EncodingError;

/// Key of a row. Its text form begins with the kind. Numbers are padded, so that texts sort like numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// The immutable submission of a run.
    Submission(RunId),
    /// The part of an archived run that stays in the state.
    Archived(RunId),
    /// The mutable properties of a run.
    Run(RunId),
    /// Measurements of a run's processes.
    Measured(RunId),
    /// The progress of a run, and the time of its last report.
    Progress(RunId),
    /// A process of a run's current generation.
    Process(RunId, u32),
    /// Sequence number of the last applied report of a process.
    Reported(RunId, u32),
    /// A committed checkpoint of a run, by step.
    Checkpoint(RunId, u64),
    /// One process's share of a checkpoint, by step and process.
    Share(RunId, u64, u32),
    /// A node, with its devices and fences.
    Node(NodeId),
    /// The answer to a request.
    Request(RequestId),
    /// A written checkpoint of an ended generation, by step.
    Owed(RunId, u64),
    /// Limits of retries; absent if they are the defaults.
    Retries,
}

/// Rows that are not a valid state.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum StateError {
    /// The text is not the key of a row.
    #[error("unknown row key `{key}`")]
    Key { key: String },
    /// The value cannot be decoded.
    #[error("the row `{key}` cannot be read")]
    Value {
        key: String,
        #[source]
        source: EncodingError,
    },
    /// A row contradicts its key, is missing, or needs another row that is missing.
    #[error("the row `{key}` is inconsistent: {detail}")]
    Contradiction {
        key: String,
        /// The contradiction, as a clause about the row.
        detail: String,
    },
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submission(run) => write!(f, "submission/{run}"),
            Self::Archived(run) => write!(f, "archived/{run}"),
            Self::Run(run) => write!(f, "run/{run}"),
            Self::Measured(run) => write!(f, "measured/{run}"),
            Self::Progress(run) => write!(f, "progress/{run}"),
            Self::Process(run, process) => write!(f, "process/{run}/{process:010}"),
            Self::Reported(run, process) => write!(f, "reported/{run}/{process:010}"),
            Self::Checkpoint(run, step) => write!(f, "checkpoint/{run}/{step:020}"),
            Self::Share(run, step, process) => write!(f, "share/{run}/{step:020}/{process:010}"),
            Self::Node(node) => write!(f, "node/{node}"),
            Self::Request(request) => write!(f, "request/{request}"),
            Self::Owed(run, step) => write!(f, "owed/{run}/{step:020}"),
            Self::Retries => f.write_str("configuration/retries"),
        }
    }
}

impl RowKey {
    /// Parses the text form; `None` unless it is exactly as `Display` writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (kind, id) = (parts.next()?, parts.next()?);
        let mut part = || parts.next();
        let key = match kind {
            "submission" => Self::Submission(id.parse().ok()?),
            "archived" => Self::Archived(id.parse().ok()?),
            "run" => Self::Run(id.parse().ok()?),
            "measured" => Self::Measured(id.parse().ok()?),
            "progress" => Self::Progress(id.parse().ok()?),
            "process" => Self::Process(id.parse().ok()?, part()?.parse().ok()?),
            "reported" => Self::Reported(id.parse().ok()?, part()?.parse().ok()?),
            "checkpoint" => Self::Checkpoint(id.parse().ok()?, part()?.parse().ok()?),
            "share" => Self::Share(id.parse().ok()?, part()?.parse().ok()?, part()?.parse().ok()?),
            "node" => Self::Node(id.parse().ok()?),
            "request" => Self::Request(id.parse().ok()?),
            "owed" => Self::Owed(id.parse().ok()?, part()?.parse().ok()?),
            "configuration" if id == "retries" => Self::Retries,
            _ => return None,
        };
        (key.to_string() == text).then_some(key)
    }
}
