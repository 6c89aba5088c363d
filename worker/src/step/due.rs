//! Which steps end with fingerprints.

use super::Trainer;

/// The purposes of a step's fingerprints.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due {
    /// They go into the record.
    pub(super) recorded: bool,
    /// The processes compare their fingerprints.
    pub(super) compared: bool,
    /// They must be computed. A process that trains alone computes none that are only for comparison.
    pub(super) taken: bool,
}

impl Trainer {
    /// Whether the step that completes `step` ends with fingerprints. `alone`: the run has one process. Fingerprints are compared before
    /// every checkpoint, so that a checkpoint holds a state that all processes agree on.
    pub(super) fn fingerprints_due(&self, step: u64, alone: bool) -> Due {
        let every = self.fingerprints_every;
        let recorded = every > 0 && (step.is_multiple_of(every) || step == self.until);
        let checkpoint = every > 0 && self.job.checkpoint_due(step);
        let judged = self.judge_at.contains(&step);
        let compared = recorded || checkpoint || judged;
        Due { recorded, compared, taken: if alone { recorded || judged } else { compared } }
    }
}
