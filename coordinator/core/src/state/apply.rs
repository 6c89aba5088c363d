//! `apply`: one command on the state. What it does stands with the command ([`crate::command`]); that it is done once, here.

use super::cluster::ClusterState;
use super::requests::Answered;
use super::rows::RowKey;
use crate::command::{Command, Request};
use crate::outcome::{Effect, Outcome, Refusal};

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
        if let (Some(request), Outcome::Run(_) | Outcome::Done) = (request, &outcome) {
            self.remember(index, &request, &outcome);
        }
        Applied { outcome, effects }
    }

    /// The answer to a request that was answered before; a refusal, if its id was another request's. An answer counts for the kind of
    /// request that it answered: an id that is used for another kind is a new request.
    fn answered(&self, request: &Request<'_>) -> Option<Outcome> {
        let answered = self.requests.get(request.id())?;
        let refusal = match (request, &answered.outcome) {
            (Request::Run(id, command), Outcome::Run(run)) => {
                let is_same = self.runs.get(run).is_none_or(|made| command.asks_for(self, &made.submission));
                (!is_same).then(|| Refusal::RequestTaken { request: id.to_string(), run: run.clone() })
            }
            (Request::Change(id, asked), Outcome::Done | Outcome::Refused(_)) => {
                // A build that did not note what was asked answered any of them.
                let is_same = answered.asked.is_none_or(|before| before == *asked);
                (!is_same).then(|| Refusal::RequestUsed(id.to_string()))
            }
            (Request::Run(..), Outcome::Done | Outcome::Refused(_)) | (Request::Change(..), Outcome::Run(_)) => {
                return None;
            }
        };
        Some(refusal.map_or_else(|| answered.outcome.clone(), Outcome::Refused))
    }

    fn remember(&mut self, index: u64, request: &Request<'_>, outcome: &Outcome) {
        let asked = match request {
            Request::Run(..) => None,
            Request::Change(_, asked) => Some(*asked),
        };
        let answered = Answered { index, outcome: outcome.clone(), asked };
        self.changed.insert(RowKey::Request(request.id().clone()));
        if let Some(forgotten) = self.requests.insert(request.id().clone(), answered) {
            self.changed.insert(RowKey::Request(forgotten));
        }
    }
}
