//! What became of a run's checkpoints.

use super::checkpoint::{FailedCheckpoint, Restore};
use super::process::{ProcessPhase, ProcessState};
use super::run::Run;
use super::text::shortened;

/// Failed checkpoints that a run remembers, the newest: they are for people, and a full disk makes many.
const FAILED_CHECKPOINTS: usize = 100;

impl Run {
    /// What the next generation would begin with.
    pub fn last_checkpoint(&self) -> Option<Restore> {
        let last = self.checkpoints.values().next_back();
        last.map(Restore::from).or_else(|| self.state.restore.clone())
    }

    /// Remembers that the checkpoint at `step` will not be.
    pub(crate) fn checkpoint_failed(&mut self, at_ms: u64, step: u64, reason: &str) {
        self.failed_in(at_ms, self.state.generation, step, reason);
    }

    /// The same, of an earlier generation.
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

    /// The newest checkpoint that failed, if none was committed after it.
    pub fn standing_failure(&self) -> Option<&FailedCheckpoint> {
        let reached = self.last_checkpoint().map_or(0, |last| last.step);
        self.state.failed_checkpoints.last().filter(|failed| failed.step > reached)
    }

    /// Whether the checkpoint at the last step is committed.
    pub fn is_saved(&self) -> bool {
        self.checkpoints.contains_key(&self.last_step())
    }

    /// Whether a process has finished without its share of the last checkpoint: the others need not try any more.
    pub fn save_is_given_up(&self) -> bool {
        let last = self.last_step();
        let without = |(process, placed): (&u32, &ProcessState)| {
            matches!(placed.phase, ProcessPhase::Finished { .. }) && !self.shares.contains_key(&(last, *process))
        };
        self.submission.replay.is_none() && !self.is_saved() && self.state.placement.iter().any(without)
    }
}
