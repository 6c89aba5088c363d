//! `Commit` and `CommitFailed`: what the leader found when it opened the blobs of a written checkpoint (I5).

use lockstep_common::manifest::Manifest;
use lockstep_common::{Digest, RunId};
use serde::{Deserialize, Serialize};

use super::dispatch::Apply;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::ClusterState;

/// The leader opened every blob of a checkpoint whose shares are all there: the checkpoint exists from now on.
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
    /// The manifest whose blobs were opened; shares that give another one are not committed.
    pub checkpoint: Digest,
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
        let (at_ms, id, step) = (self.at_ms, &self.run, self.step);
        let of = (self.generation, step);
        let Some(run) = state.run(id).filter(|run| run.next_to_open() == Some(of)) else { return Ok(Outcome::Done) };
        if run.owed.contains_key(&step) {
            state.commit_owed(at_ms, id, of, &self.checkpoint, effects);
            return Ok(Outcome::Done);
        }
        match state.assembled(id, self.generation, step) {
            Some(Ok(manifest)) if Manifest::id(&manifest.encode()) == self.checkpoint => {
                state.commit(at_ms, id, self.generation, &manifest);
                state.conclude(at_ms, id);
            }
            // Other shares have come: whoever leads opens those.
            Some(Ok(_)) | None => {}
            Some(Err(reason)) => state.reject(at_ms, id, of, &reason, effects),
        }
        Ok(Outcome::Done)
    }
}

impl Apply for CommitFailed {
    fn apply(&self, state: &mut ClusterState, _: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        state.reject(self.at_ms, &self.run, (self.generation, self.step), &self.reason, effects);
        Ok(Outcome::Done)
    }
}
