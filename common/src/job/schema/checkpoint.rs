//! `[checkpoint]`: how often a run writes checkpoints.

use serde::{Deserialize, Serialize};

/// How often a run writes checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0: only after the last step, which always has a checkpoint.
    #[serde(default)]
    pub every_steps: u64,
}
