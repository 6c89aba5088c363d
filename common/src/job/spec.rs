//! A checked job with its canonical text.

use std::ops::Deref;

use super::error::JobError;
use super::schema::{Data, Job, LossKind, Model, Task};
use crate::canonical::{self, DecodeError};
use crate::digest::{Digest, Domain};

/// A checked job. Only this type is used after parsing.
///
/// It keeps the text that it was read from. The job's digest is the digest of this text, so it does not change when a later version
/// of the program adds keys or defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    job: Job,
    text: String,
}

/// Bytes that are not a valid job.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not the JSON of a job.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A value is out of range or contradicts another.
    #[error("the job is not valid")]
    Unsound(#[source] JobError),
}

impl Deref for JobSpec {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl JobSpec {
    /// Checks `job` and encodes its canonical text.
    pub fn new(job: Job) -> Result<Self, JobError> {
        job.check()?;
        let text = String::from_utf8(canonical::encode(&job)).expect("JSON is UTF-8");
        Ok(Self { job, text })
    }

    /// The bytes that are hashed and stored: canonical JSON of a new job, or the bytes that a stored job was read from.
    pub fn canonical(&self) -> Vec<u8> {
        self.text.clone().into_bytes()
    }

    /// Decodes and checks bytes that [`JobSpec::canonical`] of this version or an earlier one returned. A missing key has its default.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let job: Job = canonical::read("job", bytes)?;
        job.check().map_err(CanonicalError::Unsound)?;
        Ok(Self { job, text: String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8, and it was read") })
    }

    /// As [`JobSpec::from_canonical`], for a new job: also applies the limits that stored jobs of earlier versions may exceed.
    pub fn from_submitted(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let job = Self::from_canonical(bytes)?;
        job.check_new().map_err(CanonicalError::Unsound)?;
        Ok(job)
    }

    /// The digest of the job's text.
    pub fn digest(&self) -> Digest {
        Domain::Job.digest(self.text.as_bytes())
    }

    /// Number of processes to use if there are enough devices.
    pub fn processes(&self) -> u32 {
        self.job.world.processes.unwrap_or(self.job.ranks)
    }

    /// Number of processes that is enough to start, or to continue after a failure.
    pub fn min_processes(&self) -> u32 {
        self.job.world.min_processes.unwrap_or(1)
    }

    /// The loss over logits: `batch.loss`, or the default for the data.
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

    /// Whether `step` is the last step or a multiple of `every`. With `every` = 0 only the last step is due.
    fn due(&self, every: u64, step: u64) -> bool {
        step == self.job.steps || (every > 0 && step > 0 && step.is_multiple_of(every))
    }

    /// Whether an evaluation is due when `step` steps are completed.
    pub fn eval_due(&self, step: u64) -> bool {
        self.job.eval.as_ref().is_some_and(|eval| self.due(eval.every_steps, step))
    }

    /// Whether feature importance is measured when `step` steps are completed.
    pub fn importance_due(&self, step: u64) -> bool {
        let measured = self.job.eval.as_ref().and_then(|eval| eval.feature_importance.as_ref());
        measured.is_some_and(|asked| self.due(asked.every_steps, step))
    }

    /// Whether histograms, weight norms and update norms are measured when `step` steps are completed.
    pub fn histograms_due(&self, step: u64) -> bool {
        let every = self.job.report.histograms_every;
        every > 0 && step.is_multiple_of(every)
    }

    /// Paths, as written in the job, of its data and its TorchScript model. Data of kind `files` may include directories.
    pub fn data_paths(&self) -> Vec<&str> {
        self.job.data.paths().into_iter().chain(self.module_path()).collect()
    }

    /// Path of the TorchScript module, as written in the job; `None` for other kinds of model.
    pub fn module_path(&self) -> Option<&str> {
        match &self.job.model {
            Model::Torchscript { path, .. } => Some(path),
            _ => None,
        }
    }
}
