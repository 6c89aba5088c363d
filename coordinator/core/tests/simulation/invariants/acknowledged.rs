//! Invariant: the state of every later serving leader contains each acknowledged command.

use std::collections::BTreeMap;

use lockstep_common::RunId;
use lockstep_core::command::{Cancel, Report};
use lockstep_core::{ClusterState, Command, Outcome};

#[derive(Default)]
pub(crate) struct Acknowledged {
    runs: BTreeMap<RunId, bool>,
    reports: BTreeMap<(RunId, u64, u32), u64>,
}

impl Acknowledged {
    /// Records an answer.
    pub(crate) fn observe(&mut self, command: &Command, outcome: &Outcome) {
        match (command, outcome) {
            (_, Outcome::Run(run)) => {
                self.runs.entry(run.clone()).or_default();
            }
            (Command::Cancel(Cancel { run, .. }), Outcome::Done) => {
                self.runs.insert(run.clone(), true);
            }
            (Command::Report(Report { run, generation, process, sequence, .. }), Outcome::Done) => {
                let last = self.reports.entry((run.clone(), *generation, *process)).or_default();
                *last = (*last).max(*sequence);
            }
            _ => {}
        }
    }

    pub(crate) fn check(&self, state: &ClusterState) {
        for (id, cancelled) in &self.runs {
            let run = state.run(id).unwrap_or_else(|| panic!("run `{id}` was acknowledged and is gone"));
            assert!(!cancelled || run.state.status.is_final(), "run `{id}` was cancelled and goes on");
        }
        for ((id, generation, process), sequence) in &self.reports {
            let run = state.run(id).unwrap_or_else(|| panic!("run `{id}` was reported on and is gone"));
            assert!(run.state.generation >= *generation, "run `{id}` went back to an older generation");
            if run.state.generation == *generation && !run.state.status.is_final() {
                let applied = run.state.placement[process].sequence;
                assert!(applied >= *sequence, "report {sequence} of run `{id}` was acknowledged, {applied} is here");
            }
        }
    }
}
