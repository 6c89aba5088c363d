//! [`ClusterState::apply`]: applies each command, and each request only once.

use super::apply::Request;
use super::dispatch::Command;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{Answered, ClusterState};

/// The result of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer to the caller.
    pub outcome: Outcome,
    /// Effects to store together with the state, in order.
    pub effects: Vec<Effect>,
}

impl ClusterState {
    /// Applies the command of the log entry at `index`.
    ///
    /// Deterministic, and total: no decoded command makes it panic.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        let command = command.dispatch();
        let request = command.request();
        let mut effects = Vec::new();
        if let Some(outcome) = request.as_ref().and_then(|request| self.answered(request)) {
            return Applied { outcome, effects };
        }
        let outcome = command.apply(self, index, &mut effects).unwrap_or_else(Outcome::Refused);
        if let (Some(Request { id, asked, .. }), Outcome::Run(_) | Outcome::Done) = (request, &outcome) {
            self.remember(id, Answered { index, outcome: outcome.clone(), asked: Some(asked) });
        }
        Applied { outcome, effects }
    }

    /// The earlier answer to this request, or a refusal if its id belongs to a different request. `None` for a new request. An answer
    /// that created a run counts only for requests that create runs, and other answers only for other requests.
    fn answered(&self, request: &Request<'_>) -> Option<Outcome> {
        let Request { id, makes_run, asked } = request;
        let answered = self.request(id)?;
        // Early builds stored no digest, so every request with this id counts as the same.
        let is_same = answered.asked.is_none_or(|before| before == *asked);
        let refusal = match (makes_run, &answered.outcome) {
            (true, Outcome::Run(run)) => {
                (!is_same).then(|| Refusal::RequestTaken { request: id.to_string(), run: run.clone() })
            }
            (false, Outcome::Done | Outcome::Refused(_)) => (!is_same).then(|| Refusal::RequestUsed(id.to_string())),
            (true, Outcome::Done | Outcome::Refused(_)) | (false, Outcome::Run(_)) => return None,
        };
        Some(refusal.map_or_else(|| answered.outcome.clone(), Outcome::Refused))
    }
}
