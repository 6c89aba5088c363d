//! `Commit` and `CommitFailed`: the result of the leader's check of a written checkpoint (I5).

use lockstep_common::manifest::Piece;
use lockstep_common::{Digest, RunId};
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{Checkpoint, ClusterState};

/// Commits a checkpoint: all shares are written, and the leader has opened every blob and written the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run that wrote the checkpoint.
    pub run: RunId,
    /// The generation that wrote the checkpoint; it may have ended since.
    pub generation: u64,
    /// Number of completed steps.
    pub step: u64,
    /// The checkpoint's id: digest of the manifest.
    pub checkpoint: Digest,
    /// Blob that contains the manifest.
    pub manifest: Piece,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Digest of the state in the checkpoint.
    pub state: Digest,
    /// [`crate::state::Written::shares_digest`] of the shares that the leader read. If the shares have changed since, nothing is
    /// committed.
    pub shares: Digest,
}

/// Rejects a checkpoint: the leader could not open one of its blobs, or its shares contradict each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitFailed {
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run that wrote the checkpoint.
    pub run: RunId,
    /// The generation that wrote the checkpoint; it may have ended since.
    pub generation: u64,
    /// Number of completed steps.
    pub step: u64,
    /// What is wrong, for users; cut to 4,096 bytes.
    pub reason: String,
}

impl Apply for Commit {
    /// Commits if the leader has read the present shares, and no checkpoint of an earlier step waits to be opened.
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let (id, step) = (&self.run, self.step);
        let of = (self.generation, step);
        let is_next = state.run(id).is_some_and(|run| run.next_to_open() == Some(of));
        let written = state.written_at(id, self.generation, step).filter(|_| is_next);
        // If the shares have changed, the leader opens the new ones.
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
