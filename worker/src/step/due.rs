//! When a step ends with fingerprints.

use super::Trainer;

/// What a step's fingerprints are for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due {
    /// The record.
    pub(super) recorded: bool,
    /// The processes compare theirs.
    pub(super) compared: bool,
    /// They are needed: a process that trains alone compares its own with nobody's.
    pub(super) taken: bool,
}

impl Trainer {
    /// Whether the step that completes `step` ends with fingerprints; `alone`: of one process. Every checkpoint is of a state that
    /// all agree on.
    pub(super) fn fingerprints_due(&self, step: u64, alone: bool) -> Due {
        let every = self.fingerprints_every;
        let recorded = every > 0 && (step.is_multiple_of(every) || step == self.until);
        let checkpoint = every > 0 && self.job.checkpoint_due(step);
        let judged = self.judge_at.contains(&step);
        let compared = recorded || checkpoint || judged;
        Due { recorded, compared, taken: if alone { recorded || judged } else { compared } }
    }
}
