//! A job that was checked, and its canonical text.

use std::ops::Deref;

use super::error::JobError;
use super::schema::{Data, Job, LossKind, Model, Task};
use crate::canonical::{self, DecodeError};
use crate::digest::{Digest, Domain};

/// A job that was checked. Later code takes only this.
///
/// It keeps the text that it was read from: the job's digest is that text's, whatever keys and defaults a later version of
/// the program adds.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    job: Job,
    text: String,
}

/// Bytes that are no sound job.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not the JSON of a job.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A job, but not a sound one.
    #[error("the job is not sound")]
    Unsound(#[source] JobError),
}

impl Deref for JobSpec {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl JobSpec {
    /// Checks `job`, and writes its text.
    pub fn new(job: Job) -> Result<Self, JobError> {
        job.check()?;
        let text = String::from_utf8(canonical::encode(&job)).expect("JSON is UTF-8");
        Ok(Self { job, text })
    }

    /// The bytes that are hashed and stored: canonical JSON when a job is submitted, and from then on as they were written.
    pub fn canonical(&self) -> Vec<u8> {
        self.text.clone().into_bytes()
    }

    /// Reads what [`JobSpec::canonical`] wrote, in this version or an earlier one: a key that the text lacks has its default.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let job: Job = canonical::read("job", bytes)?;
        job.check().map_err(CanonicalError::Unsound)?;
        Ok(Self { job, text: String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8, and it was read") })
    }

    /// As [`JobSpec::from_canonical`], of a job that is new: what later versions refuse of new jobs is refused.
    pub fn from_submitted(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let job = Self::from_canonical(bytes)?;
        job.check_new().map_err(CanonicalError::Unsound)?;
        Ok(job)
    }

    /// The digest of the job's text.
    pub fn digest(&self) -> Digest {
        Domain::Job.digest(self.text.as_bytes())
    }

    /// Processes to use if there are devices for them.
    pub fn processes(&self) -> u32 {
        self.job.world.processes.unwrap_or(self.job.ranks)
    }

    /// Processes that suffice.
    pub fn min_processes(&self) -> u32 {
        self.job.world.min_processes.unwrap_or(1)
    }

    /// The loss over logits: as named, or as the data asks for.
    pub fn loss(&self) -> LossKind {
        self.job.batch.loss.unwrap_or(match &self.job.data {
            Data::Csv { task: Task::Regression, .. } => LossKind::Mse,
            _ => LossKind::CrossEntropy,
        })
    }

    /// Whether a checkpoint is due when `step` steps are completed (I10: a function of the step alone).
    pub fn checkpoint_due(&self, step: u64) -> bool {
        self.due(self.job.checkpoint.every_steps, step)
    }

    /// Every so many steps, never if 0, and with the last.
    fn due(&self, every: u64, step: u64) -> bool {
        step == self.job.steps || (every > 0 && step > 0 && step.is_multiple_of(every))
    }

    /// Whether an evaluation is due when `step` steps are completed.
    pub fn eval_due(&self, step: u64) -> bool {
        self.job.eval.as_ref().is_some_and(|eval| self.due(eval.every_steps, step))
    }

    /// Whether the features' importance is measured when `step` steps are completed.
    pub fn importance_due(&self, step: u64) -> bool {
        let measured = self.job.eval.as_ref().and_then(|eval| eval.feature_importance.as_ref());
        measured.is_some_and(|asked| self.due(asked.every_steps, step))
    }

    /// Whether the step that completes `step` is looked at closely.
    pub fn histograms_due(&self, step: u64) -> bool {
        let every = self.job.report.histograms_every;
        every > 0 && step.is_multiple_of(every)
    }

    /// Every file that the job reads, as written in it: its data, and its TorchScript model. Of kind `files` also directories.
    pub fn data_paths(&self) -> Vec<&str> {
        self.job.data.paths().into_iter().chain(self.module_path()).collect()
    }

    /// The TorchScript module, as written in the job, if that is the model.
    pub fn module_path(&self) -> Option<&str> {
        match &self.job.model {
            Model::Torchscript { path, .. } => Some(path),
            _ => None,
        }
    }
}
