//! The parts of a checkpoint beside tensors.

use lockstep_common::manifest::RecordPosition;
use lockstep_common::preprocessing::Preprocessing;

use super::rank_state::RankDraft;
use super::state::Named;

/// The parts of a checkpoint beside tensors, as of the step that it is taken at.
#[derive(Debug)]
pub struct Staging {
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The states of the ranks that this process hosts.
    pub ranks: Vec<RankDraft>,
    /// Length and digest of the record; only in process 0.
    pub record: Option<RecordPosition>,
    /// Only in process 0; `None` also if a program reads the data itself.
    pub preprocessing: Option<Preprocessing>,
    /// [`super::State::steps`]; only in process 0.
    pub steps: Option<Named>,
    /// Whether it is the last checkpoint of the run.
    pub last: bool,
}
