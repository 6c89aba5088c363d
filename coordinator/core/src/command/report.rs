//! `Report`: what a process said, through its agent.

use lockstep_common::{NodeId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, ReportBody, Status};

/// A process said something, through its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// Of which run.
    pub run: RunId,
    /// Of which generation; older ones are acknowledged and change nothing (fencing).
    pub generation: u64,
    /// Which process.
    pub process: u32,
    /// From 1 without gaps; one seen before is acknowledged and changes nothing, one from the future is refused.
    pub sequence: u64,
    /// Whose agent brought it; `None` in logs of builds that did not say.
    #[serde(default)]
    pub from: Option<Messenger>,
    /// What it said.
    pub body: ReportBody,
}

/// The agent that brought a report, as the coordinator knows it from its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messenger {
    /// The node that it joined as.
    pub node: NodeId,
    /// Drawn at the agent's start: another one means that all its earlier processes are gone.
    pub incarnation: String,
}

impl Apply for Report {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let Self { at_ms, run: id, process, body, .. } = self;
        if !self.counts(state)? {
            return Ok(Outcome::Done);
        }
        state.heard(*at_ms, id, *process, self.sequence);
        match state.run(id).and_then(|run| run.untimely(*process, body).or_else(|| run.impossible(body))) {
            Some(reason) => state.fail(*at_ms, id, Some(*process), &reason),
            None => state.apply_report(*at_ms, id, *process, body, effects),
        }
        Ok(Outcome::Done)
    }
}

impl Report {
    /// Whether it changes anything: it is of the current generation of a run that goes on, from the agent that runs the process,
    /// and was not applied before. One that comes before its turn, or from another agent, is refused.
    fn counts(&self, state: &ClusterState) -> Result<bool, Refusal> {
        let Self { run: id, generation, process, sequence, from, body, .. } = self;
        if state.archived(id).is_some() {
            return Ok(false);
        }
        let run = state.run(id).ok_or_else(|| Refusal::NoRun(id.to_string()))?;
        let current = run.state.generation;
        // Fencing: an older generation is heard out and changes nothing, and neither does anything after the end,
        // but for the exits of a finished run's processes.
        let finished = matches!(run.state.status, Status::Finished { .. } | Status::Unsaved { .. });
        let exit_of_finished = finished && matches!(body, ReportBody::Exited { .. });
        if *generation < current || (run.state.status.is_final() && !exit_of_finished) {
            return Ok(false);
        }
        let placed = run.state.placement.get(process).filter(|_| *generation == current);
        let Some(placed) = placed else {
            let (run, generation, process) = (id.clone(), *generation, *process);
            return Err(Refusal::NoProcess { run, generation, process, current });
        };
        if let Some(Messenger { node, incarnation }) = from
            && (placed.node != *node || state.node(node).is_none_or(|known| known.incarnation != *incarnation))
        {
            let (run, placed) = (id.clone(), placed.node.clone());
            let (brought, incarnation) = (node.clone(), incarnation.clone());
            return Err(Refusal::NotItsAgent { run, process: *process, placed, brought, incarnation });
        }
        let expected = placed.sequence + 1;
        if *sequence > expected {
            return Err(Refusal::OutOfOrder { process: *process, expected, got: *sequence });
        }
        Ok(*sequence == expected)
    }
}
