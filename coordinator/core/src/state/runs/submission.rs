//! What a run began with.

use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{Digest, RunId};
use serde::{Deserialize, Serialize};

/// What a run began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The run's id.
    pub id: RunId,
    /// Index of the log entry that created it: runs are queued, and listed, in this order.
    pub number: u64,
    /// The job in canonical form.
    pub job: String,
    /// Where the job's relative paths begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The data.
    pub data: Vec<DataFile>,
    /// What the generations' secrets are derived from.
    pub secret: [u8; 32],
    /// The checkpoint that it was resumed from.
    pub parent: Option<Digest>,
    /// What may differ from that checkpoint.
    pub accepted: Vec<String>,
    /// Set if it repeats a part of another run.
    pub replay: Option<Replay>,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
}

/// A part of a run that is repeated and compared with the record. A replay writes no checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The run that is repeated.
    pub of: RunId,
    /// Steps completed at the end.
    pub until: u64,
    /// Steps between fingerprints, in place of the job's; 0: none.
    pub fingerprints_every: u64,
}
