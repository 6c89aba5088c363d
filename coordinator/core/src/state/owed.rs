//! Checkpoints that outlive their generation: written, and not opened yet when the generation, or the run, ended.
//!
//! ```text
//!  generation ends ─> its written checkpoints become manifests that are owed ─ the leader opens them, in order of steps
//!                        │                                                       ├─> Commit: committed
//!                        └─ the next generation waits until none is owed         └─> CommitFailed: said, and gone
//! ```
//!
//! Without this rule a checkpoint whose processes had all reported it durable would be lost without a word.

use lockstep_common::manifest::Manifest;
use lockstep_common::{Digest, RunId};
use serde::{Deserialize, Serialize};

use super::cluster::ClusterState;
use super::rows::RowKey;
use super::runs::Run;
use crate::outcome::Effect;

/// A written checkpoint of a generation that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    /// The generation that wrote it.
    pub generation: u64,
    /// The canonical bytes of its manifest.
    #[serde(with = "serde_bytes")]
    pub manifest: Vec<u8>,
}

impl Run {
    /// Why the run gets no devices yet, for people: the next generation begins from a checkpoint that is still being opened.
    pub(super) fn waits_for_owed(&self) -> Option<String> {
        let step = self.owed.keys().next_back()?;
        Some(format!("waits until the coordinator has opened its checkpoint at step {step}"))
    }

    /// The owed manifest at `step`, if `generation` wrote it.
    pub(super) fn owed_manifest(&self, generation: u64, step: u64) -> Option<Manifest> {
        let owed = self.owed.get(&step).filter(|owed| owed.generation == generation)?;
        Manifest::decode(&owed.manifest).ok()
    }
}

impl ClusterState {
    /// Ends the shares of the current generation: what is written becomes owed, the rest is dropped.
    pub(super) fn owe_written(&mut self, at_ms: u64, id: &RunId) {
        let Some(run) = self.runs.get(id) else { return };
        let generation = run.state.generation;
        let assembled: Vec<_> =
            run.written_steps().into_iter().map(|step| (step, super::commit::assemble(self, run, step))).collect();
        for (step, assembled) in assembled {
            match assembled {
                Ok(manifest) => self.set_owed(id, step, Some(Owed { generation, manifest: manifest.encode() })),
                Err(reason) => {
                    if let Some(run) = self.run_mut(id) {
                        run.checkpoint_failed(at_ms, step, &reason);
                    }
                }
            }
        }
        self.drop_shares(id, |_| true);
    }

    /// Commits an owed checkpoint whose blobs the leader has opened.
    pub(crate) fn commit_owed(
        &mut self,
        at_ms: u64,
        id: &RunId,
        (generation, step): (u64, u64),
        checkpoint: &Digest,
        effects: &mut Vec<Effect>,
    ) {
        let manifest = self.runs.get(id).and_then(|run| run.owed_manifest(generation, step));
        let Some(manifest) = manifest.filter(|manifest| Manifest::id(&manifest.encode()) == *checkpoint) else {
            return;
        };
        self.set_owed(id, step, None);
        self.commit(at_ms, id, generation, &manifest);
        self.owed_settled(id, effects);
    }

    /// Gives an owed checkpoint up, and says so.
    pub(super) fn owed_failed(
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
    fn owed_settled(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        let waited = |run: &Run| run.owed.is_empty() && run.state.placement.is_empty();
        if self.runs.get(id).is_some_and(waited) {
            self.rewind(id, effects);
            self.place_queued();
        }
    }

    /// Rewinds the record to where the next generation begins.
    pub(super) fn rewind(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
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
