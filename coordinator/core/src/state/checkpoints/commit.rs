//! The commit rule: a checkpoint is committed when every process of one generation has written its share, and the leader has opened
//! every blob that the checkpoint names (I5).
//!
//! ```text
//!  shares ─ the last one ─> written ─ the leader opens its blobs, on another thread ─> Commit: committed
//!                                                                                 └──> CommitFailed: rejected
//! ```
//!
//! A run's checkpoints are opened and committed in the order of their steps, so that none is skipped. A rejected checkpoint is added to
//! the run's failed checkpoints. [`super::owed`] has the rule for written checkpoints of a generation that has ended.
//!
//! Shares and manifests are blobs. The state contains only their digests, because `apply` does no I/O (I1). It also contains which
//! checkpoints are written, so a new leader opens those that the previous one did not.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::RunId;
use lockstep_common::manifest::Piece;

use super::written::Written;
use crate::outcome::Effect;
use crate::state::cluster::ClusterState;
use crate::state::runs::{Checkpoint, Run};

/// Maximum number of shares of one run that wait for shares of other processes, or to be opened. One process's reports may arrive long
/// before another's, because agents keep reports while the coordinator is away.
const WAITING_SHARES: usize = 1 << 14;

/// Number of checkpoints that may wait even if they have more shares than [`WAITING_SHARES`].
const WAITING_ALWAYS: usize = 2;

impl Run {
    /// If too many shares wait: the step of the earliest waiting checkpoint, and the reason why it fails.
    fn waits_too_much(&self) -> Option<(u64, String)> {
        if self.shares.len() <= WAITING_SHARES {
            return None;
        }
        let steps: BTreeSet<u64> = self.shares.keys().map(|(step, _)| *step).collect();
        let later = steps.len() - 1;
        let reason = || format!("shares of other processes are missing, and {later} later checkpoints wait, too");
        steps.first().filter(|_| steps.len() > WAITING_ALWAYS).map(|&first| (first, reason()))
    }

    /// Whether every process of the current generation has written its share of the checkpoint at `step`.
    pub fn is_written(&self, step: u64) -> bool {
        let processes = self.state.placement.len();
        processes > 0 && self.shares.range((step, 0)..=(step, u32::MAX)).count() == processes
    }

    /// Steps of the current generation's written checkpoints, in order.
    pub(in crate::state) fn written_steps(&self) -> Vec<u64> {
        let steps: BTreeSet<u64> = self.shares.keys().map(|(step, _)| *step).collect();
        steps.into_iter().filter(|step| self.is_written(*step)).collect()
    }

    /// Generation and step of the checkpoint to open next: the earliest written one.
    pub(crate) fn next_to_open(&self) -> Option<(u64, u64)> {
        let owed = self.owed.iter().next().map(|(&step, owed)| (owed.generation, step));
        owed.or_else(|| Some((self.state.generation, *self.written_steps().first()?)))
    }
}

impl ClusterState {
    /// For each run the earliest written checkpoint that is not committed: run, generation and step.
    pub fn written(&self) -> Vec<(RunId, u64, u64)> {
        let next = |run: &Run| run.next_to_open().map(|(generation, step)| (run.id().clone(), generation, step));
        self.runs.values().filter_map(next).collect()
    }

    /// The contents of a checkpoint that [`ClusterState::written`] returned; `None` if it no longer waits to be opened.
    pub fn written_at(&self, id: &RunId, generation: u64, step: u64) -> Option<Written> {
        let run = self.runs.get(id)?;
        if let Some(owed) = run.owed.get(&step).filter(|owed| owed.generation == generation) {
            return Some(Written::owed(run, step, owed));
        }
        (run.state.generation == generation && run.is_written(step)).then(|| Written::of(run, step))
    }

    /// Adds a share. With the last one the checkpoint is written, and waits for [`crate::Command::Commit`].
    pub(in crate::state) fn share(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, blob: &Piece) {
        let Some(run) = self.runs.get(id) else { return };
        let generation = run.state.generation;
        let failed = &run.state.failed_checkpoints;
        let mut given_up = failed.iter().any(|failed| (failed.generation, failed.step) == (generation, step));
        // The run's last checkpoint is retried until it is committed.
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

    /// Marks the checkpoint at `step` as failed and drops its shares; the run continues. Of the run's last checkpoint, only this process's
    /// share is dropped, because the process retries it.
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

    /// Marks the checkpoint at `step` as failed, because the coordinator cannot accept this process's share, and drops all its shares. The
    /// process believes that its share is written, so for the run's last checkpoint all processes are told to write again.
    pub(in crate::state) fn share_refused(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, reason: &str) {
        let Some(run) = self.run_mut(id) else { return };
        run.checkpoint_failed(at_ms, step, &format!("{}: {reason}", run.name_of(process)));
        if step == run.last_step() {
            run.state.save_attempt += 1;
        }
        self.drop_shares(id, |of| of == step);
    }

    /// Rejects a written checkpoint and drops its shares. For the run's last checkpoint, all processes are told to write again.
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

    /// Commits a checkpoint. `numerics`: as measured by the generation that wrote it.
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

    /// Marks incomplete checkpoints before the committed `step` as failed. Every process writes its shares in the order of steps, so these
    /// checkpoints stay incomplete.
    fn give_up_before(&mut self, at_ms: u64, id: &RunId, step: u64) {
        let Some(run) = self.runs.get(id) else { return };
        let left: BTreeSet<u64> = run.shares.range(..(step, 0)).map(|((step, _), _)| *step).collect();
        for left in left {
            if let Some(run) = self.run_mut(id) {
                run.checkpoint_failed(at_ms, left, "some processes did not write their shares");
            }
            self.drop_shares(id, |of| of == left);
        }
    }
}
