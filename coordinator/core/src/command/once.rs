//! `apply`: one command on the state. What it does stands with the command; that it is done once, here.

use super::apply::Request;
use super::dispatch::Command;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{Answered, ClusterState};

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer.
    pub outcome: Outcome,
    /// What must be done beside the state, in order.
    pub effects: Vec<Effect>,
}

impl ClusterState {
    /// Applies the command of the log entry at `index`.
    ///
    /// Deterministic, and total: it does not panic, whatever a decoded command says.
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

    /// The answer to a request that was answered before; a refusal, if its id was another request's. An answer counts for the kind of
    /// request that it answered: an id that is used for another kind is a new request.
    fn answered(&self, request: &Request<'_>) -> Option<Outcome> {
        let Request { id, makes_run, asked } = request;
        let answered = self.request(id)?;
        // A build that did not note what was asked answered any of them.
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
