//! A replay: a part of a run that is made again.

use lockstep_common::RunId;
use serde::{Deserialize, Serialize};

/// A part of a run, to be made again and compared with what was recorded. Such a run makes no checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The run that is repeated.
    pub of: RunId,
    /// Steps completed at the end.
    pub until: u64,
    /// Steps between fingerprints, in place of the job's; 0: none.
    pub fingerprints_every: u64,
}
