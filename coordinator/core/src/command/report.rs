//! `Report`: a message of a process, sent through its agent.

use lockstep_common::{NodeId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, ReportBody, Status};

/// A message of a process, sent through its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run of the process.
    pub run: RunId,
    /// The generation of the process. Reports of older generations are acknowledged and change nothing.
    pub generation: u64,
    /// Process index, from 0.
    pub process: u32,
    /// Sequence number, from 1 without gaps. A report that was applied before is acknowledged and changes nothing; one after a gap is
    /// refused.
    pub sequence: u64,
    /// The agent that sent the report; `None` in logs of early builds.
    #[serde(default)]
    pub from: Option<Messenger>,
    /// What the process reports.
    pub body: ReportBody,
}

/// The agent that sent a report, as the coordinator knows it from the agent's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messenger {
    /// The node's name that the agent joined with.
    pub node: NodeId,
    /// Random id of the agent's start, as in [`super::NodeJoined`].
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
    /// Whether the report changes anything: it is from the current generation of a run that has not ended, from the agent that runs the
    /// process, and was not applied before.
    ///
    /// # Errors
    /// If the process does not exist, the report came after a gap, or it came from another agent.
    fn counts(&self, state: &ClusterState) -> Result<bool, Refusal> {
        let Self { run: id, generation, process, sequence, from, body, .. } = self;
        if state.archived(id).is_some() {
            return Ok(false);
        }
        let run = state.run(id).ok_or_else(|| Refusal::NoRun(id.to_string()))?;
        let current = run.state.generation;
        // Reports of an older generation change nothing. After the end of a run, only the exits of a finished run's processes count.
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
