//! `[world]`: how many processes carry the ranks.

use serde::{Deserialize, Serialize};

/// How many operating-system processes carry the ranks. Never changes the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Processes to use at most; default: one for each rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Processes that suffice to start or to go on after a failure; default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_processes: Option<u32>,
}
