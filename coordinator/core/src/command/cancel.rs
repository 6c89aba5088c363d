//! `Cancel`: a client ends a run.

use lockstep_common::{RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Status};

/// A client ends a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// However often it comes, it is applied once.
    pub request: RequestId,
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The run.
    pub run: RunId,
}

impl Apply for Cancel {
    fn apply(&self, state: &mut ClusterState, _: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let ended = |status: String| Err(Refusal::Ended { run: self.run.clone(), status });
        if let Some(archived) = state.archived(&self.run) {
            return ended(archived.status.to_string());
        }
        let run = state.run(&self.run).ok_or_else(|| Refusal::NoRun(self.run.to_string()))?;
        if run.state.status.is_final() {
            return ended(run.state.status.to_string());
        }
        state.end_run(self.at_ms, &self.run, Status::Cancelled);
        Ok(Outcome::Done)
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request::change(&self.request, "Cancel", &Self { at_ms: 0, ..self.clone() }))
    }
}
