//! `Archive`: removes runs that ended long ago from the state.

use lockstep_common::RunId;
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::ClusterState;

/// Moves runs to the archive. Runs that may still have processes or unopened checkpoints stay in the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveRuns {
    /// Ids that the leader chose: the runs that ended first.
    pub runs: Vec<RunId>,
}

impl Apply for ArchiveRuns {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        for run in &self.runs {
            state.archive(run, effects);
        }
        Ok(Outcome::Done)
    }
}
