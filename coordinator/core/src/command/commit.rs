//! `Commit` and `CommitFailed`: what the leader found when it opened the blobs of a written checkpoint (I5).

use lockstep_common::manifest::Piece;
use lockstep_common::{Digest, RunId};
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{Checkpoint, ClusterState};

/// The leader opened every blob of a checkpoint whose shares are all there, and wrote its manifest: the checkpoint exists from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The run.
    pub run: RunId,
    /// The generation that wrote it.
    pub generation: u64,
    /// Steps completed.
    pub step: u64,
    /// Digest of the manifest, by which users name the checkpoint.
    pub checkpoint: Digest,
    /// The blob of its manifest.
    pub manifest: Piece,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Digest of the state in it.
    pub state: Digest,
    /// The shares that were read, by [`crate::state::Written::shares_digest`]: if others have come meanwhile, nothing is committed.
    pub shares: Digest,
}

/// The leader could not open what a checkpoint names, or its shares contradict each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitFailed {
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The run.
    pub run: RunId,
    /// The generation that wrote it.
    pub generation: u64,
    /// Steps completed.
    pub step: u64,
    /// Why.
    pub reason: String,
}

impl Apply for Commit {
    /// Commits, if the shares are still those that the leader read, and no checkpoint of an earlier step is still to be opened.
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let (id, step) = (&self.run, self.step);
        let of = (self.generation, step);
        let is_next = state.run(id).is_some_and(|run| run.next_to_open() == Some(of));
        let written = state.written_at(id, self.generation, step).filter(|_| is_next);
        // If other shares have come, whoever leads opens those.
        let Some(written) = written.filter(|written| written.shares_digest() == self.shares) else {
            return Ok(Outcome::Done);
        };
        let made = Checkpoint {
            id: self.checkpoint,
            step,
            epoch: self.epoch,
            generation: self.generation,
            committed_at_ms: self.at_ms,
            state: self.state,
            manifest: self.manifest.clone(),
        };
        state.commit(id, made, written.numerics, effects);
        Ok(Outcome::Done)
    }
}

impl Apply for CommitFailed {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        state.reject(self.at_ms, &self.run, (self.generation, self.step), &self.reason, effects);
        Ok(Outcome::Done)
    }
}
