//! The commit rule: a checkpoint exists when every process of one generation has written its share of it (I5).

use lockstep_common::RunId;
use lockstep_common::manifest::{self, Manifest};

use super::cluster::ClusterState;
use super::rows::RowKey;
use super::run::{Checkpoint, Run};
use lockstep_common::manifest::Share;

impl ClusterState {
    /// Takes a share; with the last one the checkpoint is committed.
    pub(super) fn share(&mut self, at_ms: u64, id: &RunId, process: u32, share: &Share) {
        let Some(run) = self.runs.get(id) else { return };
        let generation = run.state.generation;
        let failed = &run.state.failed_checkpoints;
        let given_up = failed.iter().any(|failed| (failed.generation, failed.step) == (generation, share.step));
        let reached = run.last_checkpoint().map_or(0, |last| last.step);
        if given_up || share.step <= reached || share.step > run.last_step() || run.submission.replay.is_some() {
            return;
        }
        let step = share.step;
        self.add_share(id, process, share.clone());
        let Some(run) = self.runs.get(id) else { return };
        if run.shares.range((step, 0)..=(step, u32::MAX)).count() < run.state.placement.len() {
            return;
        }
        match assemble(run, step) {
            Ok(manifest) => self.commit(at_ms, id, &manifest),
            Err(reason) => {
                if let Some(run) = self.run_mut(id) {
                    run.checkpoint_failed(at_ms, step, &reason);
                }
                self.drop_shares(id, |of| of == step);
            }
        }
    }

    /// Gives the checkpoint at `step` up; the run goes on.
    pub(super) fn share_failed(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, reason: &str) {
        let Some(run) = self.run_mut(id) else { return };
        let reason = format!("{}: {reason}", run.name_of(process));
        run.checkpoint_failed(at_ms, step, &reason);
        self.drop_shares(id, |of| of == step);
    }

    fn commit(&mut self, at_ms: u64, id: &RunId, manifest: &Manifest) {
        let bytes = manifest.encode();
        let checkpoint = Manifest::id(&bytes);
        let Some(run) = self.run_mut(id) else { return };
        run.state.exits = 0;
        let committed = Checkpoint {
            id: checkpoint,
            step: manifest.step,
            epoch: manifest.epoch,
            generation: run.state.generation,
            committed_at_ms: at_ms,
            state: manifest.state,
        };
        run.checkpoints.insert(manifest.step, committed);
        self.changed.extend([RowKey::Checkpoint(id.clone(), manifest.step), RowKey::Manifest(checkpoint)]);
        self.manifests.insert(checkpoint, bytes);
        // Every process writes its shares in order of steps: what is incomplete now stays so.
        self.drop_shares(id, |of| of <= manifest.step);
    }
}

/// The manifest of the checkpoint at `step`, whose shares are all there.
fn assemble(run: &Run, step: u64) -> Result<Manifest, String> {
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
    Ok(manifest)
}
