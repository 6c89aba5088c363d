//! Limits of retries.

use serde::{Deserialize, Serialize};

/// Limits and pauses of retries. A new checkpoint resets the counters of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Number of crashed processes at which the run fails; at least 1.
    pub crashes: u32,
    /// Number of processes with transient errors at which the run fails; at least 1.
    pub transients: u32,
    /// Pause before the third attempt, in milliseconds; it doubles before each later attempt. The second attempt starts at once.
    pub pause_ms: u64,
    /// Longest pause, in milliseconds.
    pub longest_pause_ms: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { crashes: 5, transients: 5, pause_ms: 0, longest_pause_ms: 0 }
    }
}

impl Retries {
    /// Pause in milliseconds before the next attempt, after `count` failures of one kind.
    pub fn pause_ms(&self, count: u32) -> u64 {
        let doubled = count.saturating_sub(2).min(32);
        if count < 2 { 0 } else { self.pause_ms.saturating_mul(1 << doubled).min(self.longest_pause_ms) }
    }
}
