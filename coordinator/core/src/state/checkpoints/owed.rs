//! Owed checkpoints: they were written, but not opened yet, when their generation or run ended.
//!
//! ```text
//!  generation ends ─> its written checkpoints become owed ─ the leader opens their blobs, in the order of steps
//!                        │                                                       ├─> Commit: committed
//!                        └─ the next generation waits until none is owed         └─> CommitFailed: failed, and removed
//! ```
//!
//! Without this rule, a checkpoint that all processes had reported as durable could be lost without a message.

use lockstep_common::RunId;

use crate::outcome::Effect;
use crate::state::cluster::ClusterState;
use crate::state::row_key::RowKey;
use crate::state::runs::{Owed, Run};

impl Run {
    /// The shares of the current generation at `step`, with its measurements.
    pub(in crate::state) fn written_at(&self, step: u64) -> Owed {
        let shares = self.shares.range((step, 0)..=(step, u32::MAX));
        let measured = &self.state.measured;
        Owed {
            generation: self.state.generation,
            shares: shares.map(|((_, process), blob)| (*process, blob.clone())).collect(),
            environment: measured.environment.clone(),
            numerics: measured.numerics.as_ref().map(|measured| measured.values.clone()).unwrap_or_default(),
            overrides: measured.overrides.clone(),
        }
    }

    /// The reason, for users, why the run gets no devices yet: its next generation may start from a checkpoint that is not opened yet.
    pub(in crate::state) fn waits_for_owed(&self) -> Option<String> {
        let step = self.owed.keys().next_back()?;
        Some(format!("waits until the coordinator has read its checkpoint at step {step}"))
    }
}

impl ClusterState {
    /// Makes the current generation's written checkpoints owed, and drops the shares of incomplete ones.
    pub(in crate::state) fn owe_written(&mut self, id: &RunId) {
        let Some(run) = self.runs.get(id) else { return };
        let written: Vec<_> = run.written_steps().into_iter().map(|step| (step, run.written_at(step))).collect();
        for (step, owed) in written {
            self.set_owed(id, step, Some(owed));
        }
        self.drop_shares(id, |_| true);
    }

    /// Removes the owed checkpoint at `step`. Returns whether there was one.
    pub(in crate::state) fn take_owed(&mut self, id: &RunId, step: u64) -> bool {
        let is_owed = self.runs.get(id).is_some_and(|run| run.owed.contains_key(&step));
        if is_owed {
            self.set_owed(id, step, None);
        }
        is_owed
    }

    /// Removes an owed checkpoint and marks it as failed.
    pub(in crate::state) fn owed_failed(
        &mut self,
        at_ms: u64,
        id: &RunId,
        (generation, step): (u64, u64),
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        self.set_owed(id, step, None);
        if let Some(run) = self.run_mut(id) {
            run.failed_in(at_ms, generation, step, reason);
        }
        self.owed_settled(id, effects);
    }

    /// If no checkpoint is owed any more, rewinds the run to its last checkpoint and places it.
    pub(in crate::state) fn owed_settled(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        let waited = |run: &Run| run.owed.is_empty() && run.state.placement.is_empty();
        if self.runs.get(id).is_some_and(waited) {
            self.rewind(id, effects);
            self.place_queued();
        }
    }

    /// Rewinds the record to the starting point of the next generation.
    pub(in crate::state) fn rewind(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        if let Some(run) = self.run_mut(id) {
            run.state.restore = run.last_checkpoint();
            effects.push(Effect::Rewind { run: id.clone(), step: run.step() });
        }
    }

    fn set_owed(&mut self, id: &RunId, step: u64, owed: Option<Owed>) {
        if let Some(run) = self.runs.get_mut(id) {
            self.changed.insert(RowKey::Owed(id.clone(), step));
            match owed {
                Some(owed) => drop(run.owed.insert(step, owed)),
                None => drop(run.owed.remove(&step)),
            }
        }
    }
}
