//! The commit rule: a checkpoint exists when every process of one generation has written its share of it, and the leader
//! has opened every blob that it names (I5).
//!
//! ```text
//!  shares ─ the last one ─> written ─ the leader opens its blobs, off the loop ─> Commit: committed
//!                                                                            └──> CommitFailed: rejected
//! ```
//!
//! A run's checkpoints are opened and committed in the order of their steps, so that none is left behind; whichever is
//! given up is named in the run's failed checkpoints. What a generation leaves behind written: [`super::owed`].
//!
//! `apply` opens nothing (I1). The state shows which checkpoints are written, so the next leader opens those that this one did not.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::RunId;
use lockstep_common::manifest::{self, Manifest, TensorEntry};

use super::cluster::ClusterState;
use super::rows::RowKey;
use super::runs::{Checkpoint, Run};
use crate::outcome::Effect;
use lockstep_common::manifest::Share;

/// Bytes of one run's shares that may wait, for those of the other processes or to be opened. Reports of one process may come long
/// before another's: both kept them while the coordinator was away.
const WAITING_BYTES: usize = 256 << 20;

/// Checkpoints that may wait whatever their size: processes train in step.
const WAITING_ALWAYS: usize = 2;

/// About the bytes that a share takes here.
fn bytes_of(share: &Share) -> usize {
    let tensor = |tensor: &TensorEntry| 128 + tensor.name.len() + 8 * tensor.shape.len() + 40 * tensor.pieces.len();
    let rank = |rank: &manifest::RankState| 128 + 64 * (rank.seeds.len() + rank.generators.len());
    share.tensors.iter().map(tensor).sum::<usize>() + share.ranks.iter().map(rank).sum::<usize>()
}

impl Run {
    /// The earliest waiting checkpoint, if too much waits, and why it is given up.
    fn waits_too_much(&self) -> Option<(u64, String)> {
        let steps: BTreeSet<u64> = self.shares.keys().map(|(step, _)| *step).collect();
        let bytes = || self.shares.values().map(bytes_of).sum::<usize>();
        let too_much = steps.len() > WAITING_ALWAYS && bytes() > WAITING_BYTES;
        let reason = || format!("{} later checkpoints wait with it for shares of other processes", steps.len() - 1);
        steps.first().filter(|_| too_much).map(|&first| (first, reason()))
    }

    /// Whether every process of the current generation has written its share of the checkpoint at `step`.
    pub fn is_written(&self, step: u64) -> bool {
        let processes = self.state.placement.len();
        processes > 0 && self.shares.range((step, 0)..=(step, u32::MAX)).count() == processes
    }

    /// The steps of the current generation's written checkpoints, in order.
    pub(super) fn written_steps(&self) -> Vec<u64> {
        let steps: BTreeSet<u64> = self.shares.keys().map(|(step, _)| *step).collect();
        steps.into_iter().filter(|step| self.is_written(*step)).collect()
    }

    /// The generation and step of the checkpoint that is to be opened next: the earliest that is written.
    pub(crate) fn next_to_open(&self) -> Option<(u64, u64)> {
        let owed = self.owed.iter().next().map(|(&step, owed)| (owed.generation, step));
        owed.or_else(|| Some((self.state.generation, *self.written_steps().first()?)))
    }
}

impl ClusterState {
    /// Of each run the earliest checkpoint whose shares are all there and that is not committed: run, generation and step.
    pub fn written(&self) -> Vec<(RunId, u64, u64)> {
        let next = |run: &Run| run.next_to_open().map(|(generation, step)| (run.id().clone(), generation, step));
        self.runs.values().filter_map(next).collect()
    }

    /// The manifest of a checkpoint that [`ClusterState::written`] named; none if it is not there any more.
    ///
    /// # Errors
    /// How its shares contradict each other, or the run's earlier checkpoint.
    pub fn assembled(&self, id: &RunId, generation: u64, step: u64) -> Option<Result<Manifest, String>> {
        let run = self.runs.get(id)?;
        if let Some(owed) = run.owed_manifest(generation, step) {
            return Some(Ok(owed));
        }
        (run.state.generation == generation && run.is_written(step)).then(|| assemble(self, run, step))
    }

    /// Takes a share; with the last one the checkpoint is written, and waits for [`crate::Command::Commit`].
    pub(super) fn share(&mut self, at_ms: u64, id: &RunId, process: u32, share: &Share) {
        let Some(run) = self.runs.get(id) else { return };
        let generation = run.state.generation;
        let failed = &run.state.failed_checkpoints;
        let mut given_up = failed.iter().any(|failed| (failed.generation, failed.step) == (generation, share.step));
        // The last one is written again until it is there.
        given_up &= share.step != run.last_step();
        let reached = run.last_checkpoint().map_or(0, |last| last.step);
        if given_up || share.step <= reached || share.step > run.last_step() || run.submission.replay.is_some() {
            return;
        }
        self.add_share(id, process, share.clone());
        while let Some((step, reason)) = self.runs.get(id).and_then(Run::waits_too_much) {
            if let Some(run) = self.run_mut(id) {
                run.checkpoint_failed(at_ms, step, &reason);
            }
            self.drop_shares(id, |of| of == step);
        }
    }

    /// Gives the checkpoint at `step` up; the run goes on. Of the last one only this process's share is missing now: it
    /// tries again.
    pub(super) fn share_failed(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, reason: &str) {
        let Some(run) = self.run_mut(id) else { return };
        let (reason, is_last) = (format!("{}: {reason}", run.name_of(process)), step == run.last_step());
        run.checkpoint_failed(at_ms, step, &reason);
        if is_last {
            self.drop_share(id, step, process);
        } else {
            self.drop_shares(id, |of| of == step);
        }
    }

    /// A share that the coordinator cannot take, as it is described. The process holds it for written: of the last checkpoint
    /// all write theirs again, until they give it up.
    pub(super) fn share_refused(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, reason: &str) {
        let Some(run) = self.run_mut(id) else { return };
        run.checkpoint_failed(at_ms, step, &format!("{}: {reason}", run.name_of(process)));
        if step == run.last_step() {
            run.state.save_attempt += 1;
        }
        self.drop_shares(id, |of| of == step);
    }

    /// Rejects the shares of a checkpoint. Of the last one the processes write theirs again.
    pub(crate) fn reject(
        &mut self,
        at_ms: u64,
        id: &RunId,
        (generation, step): (u64, u64),
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get(id) else { return };
        if run.owed_manifest(generation, step).is_some() {
            return self.owed_failed(at_ms, id, (generation, step), reason, effects);
        }
        if run.state.status.is_final() || run.state.generation != generation || !run.is_written(step) {
            return;
        }
        let Some(run) = self.run_mut(id) else { return };
        run.checkpoint_failed(at_ms, step, reason);
        if step == run.last_step() {
            run.state.save_attempt += 1;
        }
        self.drop_shares(id, |of| of == step);
        self.conclude(at_ms, id);
    }

    /// Commits a checkpoint.
    pub(crate) fn commit(&mut self, at_ms: u64, id: &RunId, generation: u64, manifest: &Manifest) {
        let bytes = manifest.encode();
        let checkpoint = Manifest::id(&bytes);
        let Some(run) = self.run_mut(id) else { return };
        (run.state.exits, run.state.transients) = (0, 0);
        run.state.failed_on.clear();
        let committed = Checkpoint {
            id: checkpoint,
            step: manifest.step,
            epoch: manifest.epoch,
            generation,
            committed_at_ms: at_ms,
            state: manifest.state,
        };
        run.checkpoints.insert(manifest.step, committed);
        self.changed.extend([RowKey::Checkpoint(id.clone(), manifest.step), RowKey::Manifest(checkpoint)]);
        self.manifests.insert(checkpoint, bytes);
        self.drop_shares(id, |of| of == manifest.step);
        self.give_up_before(at_ms, id, manifest.step);
    }

    /// Gives up incomplete checkpoints before `step`, which is committed. Every process writes its shares in order of steps:
    /// what is incomplete now stays so.
    fn give_up_before(&mut self, at_ms: u64, id: &RunId, step: u64) {
        let Some(run) = self.runs.get(id) else { return };
        let left: BTreeSet<u64> = run.shares.range(..(step, 0)).map(|((step, _), _)| *step).collect();
        for left in left {
            if let Some(run) = self.run_mut(id) {
                run.checkpoint_failed(at_ms, left, "not all processes wrote their share of it");
            }
            self.drop_shares(id, |of| of == left);
        }
    }
}

/// The manifest of the checkpoint at `step`, whose shares are all there.
pub(super) fn assemble(state: &ClusterState, run: &Run, step: u64) -> Result<Manifest, String> {
    let shares = || run.shares.range((step, 0)..=(step, u32::MAX)).map(|((_, process), share)| (*process, share));
    let (_, first) = shares().next().ok_or("there are no shares")?;
    let record = first.record.clone().ok_or("process 0 gave no position of the record")?;
    if let Some((process, share)) = shares().find(|(_, share)| share.epoch != first.epoch) {
        return Err(format!("process 0 is in epoch {}, process {process} in epoch {}", first.epoch, share.epoch));
    }
    let mut tensors: Vec<_> = shares().flat_map(|(_, share)| share.tensors.iter().cloned()).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("tensor `{}` is in two shares", twice[0].name));
    }
    let mut ranks: Vec<_> = shares().flat_map(|(_, share)| share.ranks.iter().cloned()).collect();
    ranks.sort_by_key(|state| state.rank);
    if ranks.len() != run.job.ranks as usize {
        return Err(format!("the shares hold {} ranks, the job has {}", ranks.len(), run.job.ranks));
    }
    let manifest = Manifest {
        format: manifest::FORMAT,
        run: run.id().clone(),
        step,
        epoch: first.epoch,
        parent: run.submission.parent,
        job: run.job.digest(),
        job_text: run.submission.job.clone(),
        base_dir: run.submission.base_dir.clone(),
        code: run.submission.code.clone(),
        data: run.submission.data.clone(),
        preprocessing: first.preprocessing.clone(),
        environment: run.state.environment.clone(),
        numerics: run.state.numerics.as_ref().map(|measured| measured.values.clone()).unwrap_or_default(),
        overrides: run.state.overrides.clone(),
        state: manifest::state_digest(&tensors),
        tensors,
        ranks,
        record,
    };
    manifest.check().map_err(|error| error.to_string())?;
    let earlier = run.last_checkpoint().and_then(|earlier| state.manifest(&earlier.checkpoint));
    if let Some(Ok(earlier)) = earlier.map(Manifest::decode) {
        same_tensors(&earlier, &manifest)?;
    }
    Ok(manifest)
}

/// That `now` has the tensors of an earlier checkpoint of the same model: a share that leaves some out, or says that they are
/// others, is no share of it.
fn same_tensors(earlier: &Manifest, now: &Manifest) -> Result<(), String> {
    let id = Manifest::id(&earlier.encode()).short();
    let always = |entry: &&TensorEntry| entry.name != manifest::STEPS;
    let before: BTreeMap<&str, &TensorEntry> =
        earlier.tensors.iter().filter(always).map(|entry| (entry.name.as_str(), entry)).collect();
    for entry in now.tensors.iter().filter(always) {
        let name = &entry.name;
        let Some(was) = before.get(name.as_str()) else {
            return Err(format!("tensor `{name}` is not in checkpoint `{id}`, which came before"));
        };
        if (&was.dtype, &was.shape) != (&entry.dtype, &entry.shape) {
            return Err(format!(
                "tensor `{name}` is {} {:?}, and {} {:?} in checkpoint `{id}`, which came before",
                entry.dtype, entry.shape, was.dtype, was.shape
            ));
        }
    }
    let names: BTreeSet<&str> = now.tensors.iter().map(|entry| entry.name.as_str()).collect();
    match before.keys().find(|name| !names.contains(*name)) {
        Some(name) => Err(format!("tensor `{name}` of checkpoint `{id}`, which came before, is in no share")),
        None => Ok(()),
    }
}
