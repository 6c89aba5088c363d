//! How often a run is tried again, and what the leader's clock says of its attempts.

use lockstep_common::RunId;
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Retries};

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
