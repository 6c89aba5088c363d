//! How often a run is tried again, and what the leader's clock says of its attempts.

use lockstep_common::RunId;
use serde::{Deserialize, Serialize};

use super::dispatch::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::ClusterState;

/// The leader's configuration of what is decided here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configure {
    /// How often a run is tried again.
    pub retries: Retries,
}

/// Nothing was heard for too long of processes of a generation that are not ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitTimedOut {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The run.
    pub run: RunId,
    /// The generation that starts.
    pub generation: u64,
    /// For how long, in seconds.
    pub seconds: u64,
}

/// The pause before a run's next attempt is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryDue {
    /// The run.
    pub run: RunId,
    /// The generation that waited.
    pub generation: u64,
}

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

impl Apply for Configure {
    fn apply(&self, state: &mut ClusterState, _: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        state.set_retries(self.retries);
        Ok(Outcome::Done)
    }
}

impl Apply for WaitTimedOut {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        state.start_anew(self.at_ms, &self.run, self.generation, self.seconds, effects);
        Ok(Outcome::Done)
    }
}

impl Apply for RetryDue {
    fn apply(&self, state: &mut ClusterState, _: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        state.end_pause(&self.run, self.generation);
        Ok(Outcome::Done)
    }
}
