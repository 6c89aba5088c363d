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
//! Shares and manifests are blobs, and `apply` opens nothing (I1): the state has their digests. It shows which checkpoints are
//! written, so the next leader opens those that this one did not.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::RunId;
use lockstep_common::manifest::Piece;

use super::written::Written;
use crate::outcome::Effect;
use crate::state::cluster::ClusterState;
use crate::state::runs::{Checkpoint, Run};

/// Shares of one run that may wait, for those of the other processes or to be opened. Reports of one process may come long before
/// another's: both kept them while the coordinator was away.
const WAITING_SHARES: usize = 1 << 14;

/// Checkpoints that may wait however many their shares: processes train in step.
const WAITING_ALWAYS: usize = 2;

impl Run {
    /// The earliest waiting checkpoint, if too much waits, and why it is given up.
    fn waits_too_much(&self) -> Option<(u64, String)> {
        if self.shares.len() <= WAITING_SHARES {
            return None;
        }
        let steps: BTreeSet<u64> = self.shares.keys().map(|(step, _)| *step).collect();
        let reason = || format!("{} later checkpoints wait with it for shares of other processes", steps.len() - 1);
        steps.first().filter(|_| steps.len() > WAITING_ALWAYS).map(|&first| (first, reason()))
    }

    /// Whether every process of the current generation has written its share of the checkpoint at `step`.
    pub fn is_written(&self, step: u64) -> bool {
        let processes = self.state.placement.len();
        processes > 0 && self.shares.range((step, 0)..=(step, u32::MAX)).count() == processes
    }

    /// The steps of the current generation's written checkpoints, in order.
    pub(in crate::state) fn written_steps(&self) -> Vec<u64> {
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

    /// What the manifest of a checkpoint is made of that [`ClusterState::written`] named; none if it is not there any more.
    pub fn written_at(&self, id: &RunId, generation: u64, step: u64) -> Option<Written> {
        let run = self.runs.get(id)?;
        if let Some(owed) = run.owed.get(&step).filter(|owed| owed.generation == generation) {
            return Some(Written::owed(run, step, owed));
        }
        (run.state.generation == generation && run.is_written(step)).then(|| Written::of(run, step))
    }

    /// Takes a share; with the last one the checkpoint is written, and waits for [`crate::Command::Commit`].
    pub(in crate::state) fn share(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, blob: &Piece) {
        let Some(run) = self.runs.get(id) else { return };
        let generation = run.state.generation;
        let failed = &run.state.failed_checkpoints;
        let mut given_up = failed.iter().any(|failed| (failed.generation, failed.step) == (generation, step));
        // The last one is written again until it is there.
        given_up &= step != run.last_step();
        let reached = run.last_checkpoint().map_or(0, |last| last.step);
        if given_up || step <= reached || step > run.last_step() || run.submission.replay.is_some() {
            return;
        }
        self.add_share(id, step, process, blob.clone());
        while let Some((earliest, reason)) = self.runs.get(id).and_then(Run::waits_too_much) {
            if let Some(run) = self.run_mut(id) {
                run.checkpoint_failed(at_ms, earliest, &reason);
            }
            self.drop_shares(id, |of| of == earliest);
        }
    }

    /// Gives the checkpoint at `step` up; the run goes on. Of the last one only this process's share is missing now: it
    /// tries again.
    pub(in crate::state) fn share_failed(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, reason: &str) {
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
    pub(in crate::state) fn share_refused(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, reason: &str) {
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
        if run.owed.get(&step).is_some_and(|owed| owed.generation == generation) {
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

    /// Commits a checkpoint, whose generation measured `numerics`.
    pub(crate) fn commit(
        &mut self,
        id: &RunId,
        made: Checkpoint,
        numerics: BTreeMap<String, String>,
        effects: &mut Vec<Effect>,
    ) {
        let (at_ms, step, is_owed) = (made.committed_at_ms, made.step, self.take_owed(id, made.step));
        let Some(run) = self.run_mut(id) else { return };
        (run.state.exits, run.state.transients) = (0, 0);
        run.state.failed_on.clear();
        if let Some(measured) = self.measured_mut(id) {
            measured.restored = numerics;
        }
        self.add_checkpoint(id, made);
        self.drop_shares(id, |of| of == step);
        self.give_up_before(at_ms, id, step);
        if is_owed { self.owed_settled(id, effects) } else { self.conclude(at_ms, id) }
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
