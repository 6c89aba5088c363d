//! `Archive`: runs that ended long ago leave the state.

use lockstep_common::RunId;
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::ClusterState;

/// These runs go to the archive, as far as nothing of them is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveRuns {
    /// Those that ended longest ago, by the leader's choice.
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
