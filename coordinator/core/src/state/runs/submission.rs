//! Immutable properties of a run.

use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{Digest, RunId};
use serde::{Deserialize, Serialize};

/// Immutable properties of a run, from its creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Id of the run, derived from `number` and the request id.
    pub id: RunId,
    /// Index of the log entry that created the run. Runs are queued and listed in this order.
    pub number: u64,
    /// The job in canonical form.
    pub job: String,
    /// Directory that the job's relative paths begin at.
    pub base_dir: String,
    /// Version of the code; `None` if the job file was not in a Git work tree.
    pub code: Option<CodeVersion>,
    /// Files and directories of the data, with their digests.
    pub data: Vec<DataFile>,
    /// Random bytes from which the secret of each generation is derived.
    pub secret: [u8; 32],
    /// The checkpoint that the run was created from; `None`: it starts at step 0.
    pub parent: Option<Digest>,
    /// Keys that may differ from that checkpoint.
    pub accepted: Vec<String>,
    /// Set if the run re-runs steps of another run.
    pub replay: Option<Replay>,
    /// Time of the creation, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// Steps of another run that are re-run, to compare them with its record. A replay writes no checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The original run.
    pub of: RunId,
    /// The last step to re-run.
    pub until: u64,
    /// Steps between fingerprints, instead of the job's value; 0: no fingerprints.
    pub fingerprints_every: u64,
}
