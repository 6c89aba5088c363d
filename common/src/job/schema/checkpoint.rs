//! `[checkpoint]`: when to checkpoint.

use serde::{Deserialize, Serialize};

/// When to checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0: only at the end. The last step always has one.
    #[serde(default)]
    pub every_steps: u64,
}
