//! Written checkpoints, and how the leader makes their manifests.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::manifest::{self, Manifest, Override, Piece, Share, TensorEntry};
use lockstep_common::{Digest, Domain};

use crate::state::runs::Owed;
use crate::state::runs::{Run, Submission};

/// A checkpoint with all its shares, whose blobs the leader has not opened yet.
#[derive(Clone, Debug)]
pub struct Written {
    /// The blob of each process's share, by process index. It contains a [`Share`] in JSON.
    pub shares: BTreeMap<u32, Piece>,
    /// Manifest of the run's previous checkpoint, or of the checkpoint that the run started from.
    pub earlier: Option<Piece>,
    /// Whether this is the checkpoint at the run's last step.
    pub is_last: bool,
    /// Numerics that the generation measured.
    pub numerics: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    overrides: Vec<Override>,
    submission: Submission,
    step: u64,
    ranks: u32,
}

impl Written {
    /// The written checkpoint of the current generation at `step`.
    pub(in crate::state) fn of(run: &Run, step: u64) -> Self {
        Self::owed(run, step, &run.written_at(step))
    }

    /// The written checkpoint at `step` of an earlier generation.
    pub(in crate::state) fn owed(run: &Run, step: u64, owed: &Owed) -> Self {
        let Owed { shares, environment, numerics, overrides, .. } = owed.clone();
        Self {
            shares,
            earlier: run.last_checkpoint().map(|earlier| earlier.manifest),
            is_last: step == run.last_step(),
            numerics,
            environment,
            overrides,
            submission: run.submission.clone(),
            step,
            ranks: run.job.ranks,
        }
    }

    /// Digest of the shares' blobs. It changes if any share changes.
    pub fn shares_digest(&self) -> Digest {
        let mut hasher = Domain::Shares.hasher();
        for (process, blob) in &self.shares {
            hasher.update(&process.to_le_bytes()).update(blob.digest.as_bytes()).update(&blob.bytes.to_le_bytes());
        }
        Digest::of(&hasher)
    }

    /// Makes the manifest. `shares` are the decoded `self.shares`, and `earlier` is the decoded `self.earlier`.
    ///
    /// # Errors
    /// The contradiction between the shares, or between a share and `earlier`.
    pub fn assemble(&self, shares: &BTreeMap<u32, Share>, earlier: Option<&Manifest>) -> Result<Manifest, String> {
        let (_, first) = shares.first_key_value().ok_or("it has no shares")?;
        if let Some((process, share)) = shares.iter().find(|(_, share)| share.step != self.step) {
            return Err(format!("process {process} wrote a share of step {}, not of step {}", share.step, self.step));
        }
        let record = first.record.clone().ok_or("the share of process 0 has no position in the record")?;
        if let Some((process, share)) = shares.iter().find(|(_, share)| share.epoch != first.epoch) {
            return Err(format!("process 0 is in epoch {}, process {process} in epoch {}", first.epoch, share.epoch));
        }
        let mut tensors: Vec<_> = shares.values().flat_map(|share| share.tensors.iter().cloned()).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(format!("tensor `{}` is in two shares", twice[0].name));
        }
        let mut ranks: Vec<_> = shares.values().flat_map(|share| share.ranks.iter().cloned()).collect();
        ranks.sort_by_key(|state| state.rank);
        if ranks.len() != self.ranks as usize {
            return Err(format!("the shares contain {} ranks, but the job has {}", ranks.len(), self.ranks));
        }
        let Submission { id, job, base_dir, code, data, parent, .. } = self.submission.clone();
        let manifest = Manifest {
            format: manifest::FORMAT,
            run: id,
            step: self.step,
            epoch: first.epoch,
            parent,
            job: Domain::Job.digest(job.as_bytes()),
            job_text: job,
            base_dir,
            code,
            data,
            preprocessing: first.preprocessing.clone(),
            environment: self.environment.clone(),
            numerics: self.numerics.clone(),
            overrides: self.overrides.clone(),
            state: manifest::state_digest(&tensors),
            tensors,
            ranks,
            record,
        };
        manifest.check().map_err(|error| error.to_string())?;
        if let Some(earlier) = earlier {
            same_tensors(earlier, &manifest)?;
        }
        Ok(manifest)
    }
}

/// Checks that `now` has the same tensors as an earlier checkpoint of the same model, with the same types and shapes.
fn same_tensors(earlier: &Manifest, now: &Manifest) -> Result<(), String> {
    let id = Manifest::id(&earlier.encode()).short();
    let always = |entry: &&TensorEntry| entry.name != manifest::STEPS;
    let before: BTreeMap<&str, &TensorEntry> =
        earlier.tensors.iter().filter(always).map(|entry| (entry.name.as_str(), entry)).collect();
    for entry in now.tensors.iter().filter(always) {
        let name = &entry.name;
        let Some(was) = before.get(name.as_str()) else {
            return Err(format!("tensor `{name}` is not in the previous checkpoint `{id}`"));
        };
        if (&was.dtype, &was.shape) != (&entry.dtype, &entry.shape) {
            return Err(format!(
                "tensor `{name}` is {} {:?}, but {} {:?} in the previous checkpoint `{id}`",
                entry.dtype, entry.shape, was.dtype, was.shape
            ));
        }
    }
    let names: BTreeSet<&str> = now.tensors.iter().map(|entry| entry.name.as_str()).collect();
    match before.keys().find(|name| !names.contains(*name)) {
        Some(name) => Err(format!("no share has tensor `{name}`, which is in the previous checkpoint `{id}`")),
        None => Ok(()),
    }
}
