//! Outcomes of a run's checkpoints.

use super::checkpoint::{FailedCheckpoint, Restore};
use super::process::{ProcessPhase, ProcessState};
use super::run::Run;
use super::text::shortened;

/// Maximum number of failed checkpoints that a run stores, for users. A full disk causes many.
const FAILED_CHECKPOINTS: usize = 100;

impl Run {
    /// The checkpoint that the next generation would start from; `None`: from step 0.
    pub fn last_checkpoint(&self) -> Option<Restore> {
        let last = self.checkpoints.values().next_back();
        last.map(Restore::from).or_else(|| self.state.restore.clone())
    }

    /// Stores that the current generation's checkpoint at `step` failed.
    pub(crate) fn checkpoint_failed(&mut self, at_ms: u64, step: u64, reason: &str) {
        self.failed_in(at_ms, self.state.generation, step, reason);
    }

    /// As [`Run::checkpoint_failed`], for any generation.
    pub(crate) fn failed_in(&mut self, at_ms: u64, generation: u64, step: u64, reason: &str) {
        let reason = shortened(reason);
        let failed = &mut self.state.failed_checkpoints;
        if let Some(again) = failed.iter_mut().find(|failed| (failed.generation, failed.step) == (generation, step)) {
            *again = FailedCheckpoint { generation, step, reason, at_ms, attempts: again.attempts.saturating_add(1) };
            return;
        }
        if failed.len() == FAILED_CHECKPOINTS {
            failed.remove(0);
        }
        failed.push(FailedCheckpoint { generation, step, reason, at_ms, attempts: 1 });
    }

    /// The newest failed checkpoint; `None` if a checkpoint was committed after it.
    pub fn standing_failure(&self) -> Option<&FailedCheckpoint> {
        let reached = self.last_checkpoint().map_or(0, |last| last.step);
        self.state.failed_checkpoints.last().filter(|failed| failed.step > reached)
    }

    /// Whether the checkpoint at the last step is committed.
    pub fn is_saved(&self) -> bool {
        self.checkpoints.contains_key(&self.last_step())
    }

    /// Whether a process has finished without its share of the last checkpoint. Then the others need not retry.
    pub fn save_is_given_up(&self) -> bool {
        let last = self.last_step();
        let without = |(process, placed): (&u32, &ProcessState)| {
            matches!(placed.phase, ProcessPhase::Finished { .. }) && !self.shares.contains_key(&(last, *process))
        };
        self.submission.replay.is_none() && !self.is_saved() && self.state.placement.iter().any(without)
    }
}
