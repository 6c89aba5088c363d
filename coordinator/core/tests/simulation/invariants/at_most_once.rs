//! Invariant: a repeated request creates at most one run, and all its answers are equal.

use std::collections::BTreeMap;

use lockstep_common::{RequestId, RunId};
use lockstep_core::command::{Resume, Submit};
use lockstep_core::{ClusterState, Command, Outcome};

#[derive(Default)]
pub(crate) struct AtMostOnce {
    answers: BTreeMap<RequestId, RunId>,
    asked: Vec<RequestId>,
}

impl AtMostOnce {
    /// Records a request, before it is sent for the first time.
    pub(crate) fn asks(&mut self, command: &Command) {
        if let Command::Submit(Submit { request, .. }) | Command::Resume(Resume { request, .. }) = command {
            self.asked.push(request.clone());
        }
    }

    /// Records an answer.
    pub(crate) fn observe(&mut self, command: &Command, outcome: &Outcome) {
        let (Command::Submit(Submit { request, .. }) | Command::Resume(Resume { request, .. }), Outcome::Run(run)) =
            (command, outcome)
        else {
            return;
        };
        let first = self.answers.entry(request.clone()).or_insert_with(|| run.clone());
        assert_eq!(first, run, "request {request} was answered with two runs");
    }

    /// Finds the request of each run: the run's id is derived from its request and its log index.
    pub(crate) fn check(&self, state: &ClusterState) {
        let mut made: BTreeMap<&RequestId, &RunId> = BTreeMap::new();
        for run in state.runs() {
            let of = self.asked.iter().find(|request| RunId::derive(run.submission.number, request) == *run.id());
            let request = of.unwrap_or_else(|| panic!("nobody asked for run `{}`", run.id()));
            let before = made.insert(request, run.id());
            assert_eq!(before, None, "request {request} made two runs");
        }
    }
}
