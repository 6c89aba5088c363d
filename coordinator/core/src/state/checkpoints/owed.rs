//! Checkpoints that outlive their generation: written, and not opened yet when the generation, or the run, ended.
//!
//! ```text
//!  generation ends ─> its written checkpoints become owed ones ─ the leader opens their blobs, in order of steps
//!                        │                                                       ├─> Commit: committed
//!                        └─ the next generation waits until none is owed         └─> CommitFailed: said, and gone
//! ```
//!
//! Without this rule a checkpoint whose processes had all reported it durable would be lost without a word.

use lockstep_common::RunId;

use crate::outcome::Effect;
use crate::state::cluster::ClusterState;
use crate::state::row_key::RowKey;
use crate::state::runs::{Owed, Run};

impl Run {
    /// What the current generation has written at `step`.
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

    /// Why the run gets no devices yet, for people: the next generation begins from a checkpoint that is still being opened.
    pub(in crate::state) fn waits_for_owed(&self) -> Option<String> {
        let step = self.owed.keys().next_back()?;
        Some(format!("waits until the coordinator has opened its checkpoint at step {step}"))
    }
}

impl ClusterState {
    /// Ends the shares of the current generation: what is written becomes owed, the rest is dropped.
    pub(in crate::state) fn owe_written(&mut self, id: &RunId) {
        let Some(run) = self.runs.get(id) else { return };
        let written: Vec<_> = run.written_steps().into_iter().map(|step| (step, run.written_at(step))).collect();
        for (step, owed) in written {
            self.set_owed(id, step, Some(owed));
        }
        self.drop_shares(id, |_| true);
    }

    /// Whether the checkpoint at `step` was owed; it is no more.
    pub(in crate::state) fn take_owed(&mut self, id: &RunId, step: u64) -> bool {
        let is_owed = self.runs.get(id).is_some_and(|run| run.owed.contains_key(&step));
        if is_owed {
            self.set_owed(id, step, None);
        }
        is_owed
    }

    /// Gives an owed checkpoint up, and says so.
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

    /// Once nothing is owed any more it is known where the next generation begins.
    pub(in crate::state) fn owed_settled(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        let waited = |run: &Run| run.owed.is_empty() && run.state.placement.is_empty();
        if self.runs.get(id).is_some_and(waited) {
            self.rewind(id, effects);
            self.place_queued();
        }
    }

    /// Rewinds the record to where the next generation begins.
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
