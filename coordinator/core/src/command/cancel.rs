//! `Cancel`: ends a run at a client's request.

use lockstep_common::{RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Status};

/// Ends a run that has not ended yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// Id of the request; a repeated request is applied once (I4).
    pub request: RequestId,
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run to end.
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
