//! A written checkpoint: what its manifest is made of, and how.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::manifest::{self, Manifest, Override, Piece, Share, TensorEntry};
use lockstep_common::{Digest, Domain};

use crate::state::runs::Owed;
use crate::state::runs::{Run, Submission};

/// A checkpoint whose shares are all there, as blobs that the leader has yet to read.
#[derive(Clone, Debug)]
pub struct Written {
    /// The blob of each process's share, which holds a [`Share`] in JSON.
    pub shares: BTreeMap<u32, Piece>,
    /// The manifest of the run's checkpoint before, or of the one that it began from.
    pub earlier: Option<Piece>,
    /// Whether it is the run's last.
    pub is_last: bool,
    /// As the generation that wrote it measured them.
    pub numerics: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    overrides: Vec<Override>,
    submission: Submission,
    step: u64,
    ranks: u32,
}

impl Written {
    /// Of the current generation.
    pub(in crate::state) fn of(run: &Run, step: u64) -> Self {
        Self::owed(run, step, &run.written_at(step))
    }

    /// Of the generation that is named in `owed`.
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

    /// Digest of which blobs the shares are: other shares have another one.
    pub fn shares_digest(&self) -> Digest {
        let mut hasher = Domain::Shares.hasher();
        for (process, blob) in &self.shares {
            hasher.update(&process.to_le_bytes()).update(blob.digest.as_bytes()).update(&blob.bytes.to_le_bytes());
        }
        Digest::of(&hasher)
    }

    /// The manifest that `shares` make, which are those of `self.shares`; `earlier` is the checkpoint's before it.
    ///
    /// # Errors
    /// How the shares contradict each other, or that checkpoint.
    pub fn assemble(&self, shares: &BTreeMap<u32, Share>, earlier: Option<&Manifest>) -> Result<Manifest, String> {
        let (_, first) = shares.first_key_value().ok_or("there are no shares")?;
        if let Some((process, share)) = shares.iter().find(|(_, share)| share.step != self.step) {
            return Err(format!("the share of process {process} is of step {}", share.step));
        }
        let record = first.record.clone().ok_or("process 0 gave no position of the record")?;
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
            return Err(format!("the shares hold {} ranks, the job has {}", ranks.len(), self.ranks));
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
