//! What is said of a checkpoint when it is taken.

use lockstep_common::manifest::RecordPosition;
use lockstep_common::preprocessing::Preprocessing;

use super::rank_state::RankDraft;
use super::state::Named;

/// What a checkpoint holds beside tensors.
#[derive(Debug)]
pub struct Staging {
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The ranks that this process hosts.
    pub ranks: Vec<RankDraft>,
    /// From process 0.
    pub record: Option<RecordPosition>,
    /// From process 0, unless a program reads the data itself.
    pub preprocessing: Option<Preprocessing>,
    /// From process 0, if there is one: [`super::State::steps`].
    pub steps: Option<Named>,
    /// Whether it is the run's last.
    pub last: bool,
}
