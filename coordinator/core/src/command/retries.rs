//! Commands about retries: their limits, and timeouts that the leader's clock decides.

use lockstep_common::RunId;
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Retries};

/// Sets the limits of retries, from the leader's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configure {
    /// Limits and pauses, for all runs.
    pub retries: Retries,
}

/// A generation took too long to start, or a process took too long to confirm or contradict a report of corruption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitTimedOut {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run that waits.
    pub run: RunId,
    /// The generation that waits; the command does nothing if the run has another one.
    pub generation: u64,
    /// The exceeded limit, in seconds: `start_limit_s`.
    pub seconds: u64,
}

/// Ends the pause before a run's next attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryDue {
    /// The run that pauses.
    pub run: RunId,
    /// The generation that the pause precedes; the command does nothing if the run has another one.
    pub generation: u64,
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
