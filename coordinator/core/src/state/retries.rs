//! How often a run is tried again.

use serde::{Deserialize, Serialize};

/// How often a run is tried again after processes that ended too early, without a new checkpoint in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Processes that crashed, with which the run is given up; at least 1.
    pub crashes: u32,
    /// Processes that gave up for a reason that may pass, with which the run is given up; at least 1.
    pub transients: u32,
    /// Pause before the third attempt, in milliseconds; it doubles with each further one. The second follows at once.
    pub pause_ms: u64,
    /// Where the doubling ends, in milliseconds.
    pub longest_pause_ms: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { crashes: 5, transients: 5, pause_ms: 0, longest_pause_ms: 0 }
    }
}

impl Retries {
    /// The pause before the next attempt, after `count` processes that ended for one cause.
    pub fn pause_ms(&self, count: u32) -> u64 {
        let doubled = count.saturating_sub(2).min(32);
        if count < 2 { 0 } else { self.pause_ms.saturating_mul(1 << doubled).min(self.longest_pause_ms) }
    }
}
