//! The keys of the state's rows, and what is wrong with rows that are no state.

use std::fmt;

use lockstep_common::{NodeId, RequestId, RunId};

use crate::formats::EncodingError;

/// The key of a row. Its text form begins with the kind; numbers are padded, so that texts sort as numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// What a run began with.
    Submission(RunId),
    /// A run in the archive.
    Archived(RunId),
    /// Where a run stands.
    Run(RunId),
    /// What was measured of a run's processes.
    Measured(RunId),
    /// How far a run is, as its reports say.
    Progress(RunId),
    /// A process of a run's current generation.
    Process(RunId, u32),
    /// The last report of that process that was applied.
    Reported(RunId, u32),
    /// A committed checkpoint of a run, by step.
    Checkpoint(RunId, u64),
    /// A share of a checkpoint, by step and process.
    Share(RunId, u64, u32),
    /// A node.
    Node(NodeId),
    /// A remembered request.
    Request(RequestId),
    /// A written checkpoint of a generation that has ended, by step.
    Owed(RunId, u64),
    /// How often runs are tried again; absent if nobody has said.
    Retries,
}

/// Rows that are no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not a key of a row.
    #[error("`{key}` is not the key of a row of the state")]
    Key {
        /// The key.
        key: String,
    },
    /// A value that cannot be read.
    #[error("the row `{key}` cannot be read")]
    Value {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: EncodingError,
    },
    /// A row that contradicts its key, or needs another row that is not there.
    #[error("the row `{key}` does not belong here: {detail}")]
    Contradiction {
        /// Its key.
        key: String,
        /// What is wrong.
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
    /// Reads the text form.
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
