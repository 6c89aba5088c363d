//! What makes a job sound, beyond the types of its keys.

use std::collections::BTreeSet;
use std::ops::Deref;

use super::error::JobError;
use super::schema::{Data, Job, LossKind, Model, OptimizerKind, Task, TokenType};
use crate::canonical::{self, DecodeError};
use crate::digest::{Digest, Domain};
use crate::schedule::Schedule;

/// Samples of one step, over all ranks: their positions are held in memory, and every rank process must hold its part of the batch.
const MOST_SAMPLES: u64 = 1 << 24;

/// Threads of one process: no machine has more processors, and each thread takes memory.
const MOST_THREADS: u32 = 1024;

/// Layers of a built-in model, of a kind: each is an object with tensors in every rank process, and a row of what is shown of the run.
const MOST_LAYERS: usize = 10_000;

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
        check(&job)?;
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
        check(&job).map_err(CanonicalError::Unsound)?;
        Ok(Self { job, text: String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8, and it was read") })
    }

    /// As [`JobSpec::from_canonical`], of a job that is new: what later versions refuse of new jobs is refused.
    pub fn from_submitted(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let job = Self::from_canonical(bytes)?;
        check_new(&job).map_err(CanonicalError::Unsound)?;
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

impl Data {
    /// Its files, as written in the job.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Tokens { path, .. } | Self::Csv { path, .. } | Self::Safetensors { path, .. } => vec![path],
            Self::Npy { inputs, targets, .. } => vec![inputs, targets],
            Self::Idx { images, labels, validation_images, validation_labels, .. } => {
                let validation = validation_images.iter().chain(validation_labels);
                [images, labels].into_iter().chain(validation).map(String::as_str).collect()
            }
            Self::Files { paths, .. } => paths.iter().map(String::as_str).collect(),
        }
    }

    /// The git revision that it is taken as of; none: as it lies in the work tree.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Tokens { rev, .. }
            | Self::Csv { rev, .. }
            | Self::Safetensors { rev, .. }
            | Self::Npy { rev, .. }
            | Self::Idx { rev, .. }
            | Self::Files { rev, .. } => rev.as_deref(),
        }
    }
}

fn check(job: &Job) -> Result<(), JobError> {
    let refuse = |key, detail: String| Err(JobError::Value { key, detail });
    let fraction = |value: f64| (0.0..1.0).contains(&value);
    let positive = |value: f64| value.is_finite() && value > 0.0;
    let not_negative = |value: f64| value.is_finite() && value >= 0.0;

    if job.name.is_empty() || job.name.chars().count() > 100 || job.name.chars().any(char::is_control) {
        return refuse("name", "expected 1 to 100 printable characters".into());
    }
    if job.seed > i64::MAX as u64 {
        return refuse("seed", "expected at most 2^63 - 1".into());
    }
    if !(1..=1_000_000_000_000).contains(&job.steps) {
        return refuse("steps", format!("{} is not from 1 to 10^12", job.steps));
    }
    if !(1..=65_536).contains(&job.ranks) {
        return refuse("ranks", format!("{} is not from 1 to 65536", job.ranks));
    }
    if job.batch.size == 0 || !job.batch.size.is_multiple_of(u64::from(job.ranks)) {
        return refuse("batch.size", format!("{} is not divisible by `ranks` = {}", job.batch.size, job.ranks));
    }
    let processes = job.world.processes.unwrap_or(job.ranks);
    if !(1..=job.ranks).contains(&processes) {
        return refuse("world.processes", format!("{processes} is not from 1 to `ranks` = {}", job.ranks));
    }
    if let Some(min) = job.world.min_processes.filter(|min| !(1..=processes).contains(min)) {
        return refuse("world.min_processes", format!("{min} is not from 1 to `world.processes` = {processes}"));
    }
    if job.eval.as_ref().is_some_and(|eval| eval.every_steps == 0) {
        return refuse("eval.every_steps", "0 is not at least 1".into());
    }
    if job.eval.as_ref().is_some_and(|eval| eval.samples == Some(0)) {
        return refuse("eval.samples", "0 is not at least 1".into());
    }
    if let Some(importance) = job.eval.as_ref().and_then(|eval| eval.feature_importance.as_ref()) {
        if matches!(job.data, Data::Tokens { .. }) {
            let detail = "tokens are no features: it is for tables and images".into();
            return refuse("eval.feature_importance", detail);
        }
        if importance.samples < 2 {
            let detail = format!("{} is not at least 2: values are dealt out among samples", importance.samples);
            return refuse("eval.feature_importance.samples", detail);
        }
        if importance.repeats == 0 {
            return refuse("eval.feature_importance.repeats", "0 is not at least 1".into());
        }
    }
    if job.numerics.threads == 0 {
        return refuse("numerics.threads", "0 is not at least 1".into());
    }

    let optimizer = &job.optimizer;
    if !positive(optimizer.lr) {
        return refuse("optimizer.lr", format!("{} is not above 0", optimizer.lr));
    }
    if !not_negative(optimizer.weight_decay) {
        return refuse("optimizer.weight_decay", format!("{} is not 0 or above", optimizer.weight_decay));
    }
    if !fraction(optimizer.momentum) || !optimizer.betas.iter().all(|&beta| fraction(beta)) {
        return refuse("optimizer", "`momentum` and `betas` must be from 0 to below 1".into());
    }
    if optimizer.kind != OptimizerKind::Sgd && (optimizer.momentum != 0.0 || optimizer.nesterov) {
        return refuse("optimizer.momentum", "only `sgd` has momentum; `adam` and `adamw` have `betas`".into());
    }
    if optimizer.nesterov && optimizer.momentum == 0.0 {
        return refuse("optimizer.nesterov", "needs `momentum` above 0".into());
    }
    if !positive(optimizer.eps) {
        return refuse("optimizer.eps", format!("{} is not above 0", optimizer.eps));
    }
    if let Some(norm) = optimizer.clip_norm.filter(|norm| !positive(*norm)) {
        return refuse("optimizer.clip_norm", format!("{norm} is not above 0"));
    }
    match job.schedule {
        Schedule::Linear { end_factor, .. } | Schedule::Cosine { end_factor, .. } if !not_negative(end_factor) => {
            return refuse("schedule.end_factor", format!("{end_factor} is not 0 or above"));
        }
        Schedule::Step { every_steps: 0, .. } => return refuse("schedule.every_steps", "0 is not at least 1".into()),
        Schedule::Step { factor, .. } if !positive(factor) => {
            return refuse("schedule.factor", format!("{factor} is not above 0"));
        }
        _ => {}
    }
    check_model(job)?;
    let validation = match job.data {
        Data::Tokens { validation, .. }
        | Data::Csv { validation, .. }
        | Data::Npy { validation, .. }
        | Data::Safetensors { validation, .. } => validation,
        Data::Idx { ref validation_images, ref validation_labels, .. } => {
            if validation_images.is_some() != validation_labels.is_some() {
                return refuse("data.validation_labels", "validation images and labels come together".into());
            }
            if validation_images.is_some() { 0.5 } else { 0.0 }
        }
        // The program knows.
        Data::Files { .. } => 0.5,
    };
    if !fraction(validation) {
        return refuse("data.validation", format!("{validation} is not from 0 to below 1"));
    }
    if job.eval.is_some() && validation == 0.0 {
        let keys = match job.data {
            Data::Idx { .. } => "`data.validation_images` and `data.validation_labels`",
            _ => "`data.validation`",
        };
        return refuse("eval", format!("there is no validation data: set {keys}"));
    }
    Ok(())
}

/// What is refused of a new job only: a stored one that was sound stays sound.
pub(super) fn check_new(job: &Job) -> Result<(), JobError> {
    if job.batch.size > MOST_SAMPLES {
        let detail = format!("{} samples are more than a step may have, which are {MOST_SAMPLES}", job.batch.size);
        return Err(JobError::Value { key: "batch.size", detail });
    }
    let threads = job.numerics.threads;
    if threads > MOST_THREADS {
        let detail = format!("{threads} threads are more than a process may have, which are {MOST_THREADS}");
        return Err(JobError::Value { key: "numerics.threads", detail });
    }
    let (key, layers) = match &job.model {
        Model::Mlp { hidden, .. } => ("model.hidden", hidden.len()),
        Model::Resnet { blocks, .. } => ("model.blocks", *blocks as usize),
        Model::Gpt { layers, .. } => ("model.layers", *layers as usize),
        Model::Torchscript { .. } | Model::Program => ("model", 0),
    };
    if layers > MOST_LAYERS {
        let detail = format!("{layers} layers are more than a built-in model may have, which are {MOST_LAYERS}");
        return Err(JobError::Value { key, detail });
    }
    let (Data::Tokens { dtype, .. }, Model::Gpt { vocabulary, .. }) = (&job.data, &job.model) else { return Ok(()) };
    let (name, tokens) = match dtype {
        TokenType::U8 => ("u8", 1 << 8),
        TokenType::U16 => ("u16", 1 << 16),
    };
    if *vocabulary > tokens {
        let detail = format!("{vocabulary} is more than the {tokens} tokens of `data.dtype = \"{name}\"`");
        return Err(JobError::Value { key: "model.vocabulary", detail });
    }
    Ok(())
}

fn check_model(job: &Job) -> Result<(), JobError> {
    let refuse = |key, detail: String| Err(JobError::Value { key, detail });
    let tokens = matches!(job.data, Data::Tokens { .. });
    match job.model {
        Model::Mlp { ref hidden, outputs, dropout, .. } => {
            if hidden.contains(&0) || outputs == 0 {
                return refuse("model.hidden", "every layer needs at least one unit".into());
            }
            if !(0.0..1.0).contains(&dropout) {
                return refuse("model.dropout", format!("{dropout} is not from 0 to below 1"));
            }
        }
        Model::Resnet { blocks, width, outputs } => {
            if blocks == 0 || width == 0 || outputs == 0 {
                return refuse("model.blocks", "`blocks`, `width` and `outputs` must be at least 1".into());
            }
            if !matches!(job.data, Data::Idx { .. } | Data::Npy { .. } | Data::Safetensors { .. }) {
                return refuse(
                    "model.kind",
                    "`resnet` needs images: data of kind `idx`, `npy` or `safetensors`".into(),
                );
            }
        }
        Model::Gpt { layers, heads, width, context, vocabulary, dropout } => {
            if layers == 0 || context == 0 || vocabulary == 0 {
                return refuse("model.layers", "`layers`, `context` and `vocabulary` must be at least 1".into());
            }
            if heads == 0 || !width.is_multiple_of(heads) || width == 0 {
                return refuse("model.heads", format!("{heads} does not divide `model.width` = {width}"));
            }
            if !(0.0..1.0).contains(&dropout) {
                return refuse("model.dropout", format!("{dropout} is not from 0 to below 1"));
            }
            if !tokens {
                return refuse("model.kind", "`gpt` needs data of kind `tokens`".into());
            }
        }
        Model::Program if job.program.is_none() => {
            return refuse("model", "missing: what is to be trained, or `[program]`, a program that brings it".into());
        }
        Model::Torchscript { .. } | Model::Program => {}
    }
    if let Some(program) = &job.program {
        program.check()?;
        if job.model != Model::Program {
            return refuse("model.kind", "a job with `[program]` has that program's model, and no other".into());
        }
        if job.batch.loss.is_some() {
            return refuse("batch.loss", "a program computes its own loss".into());
        }
        if tokens {
            return refuse("data.kind", "a program reads `tokens` itself: say `files`".into());
        }
    }
    if let Data::Files { paths, .. } = &job.data {
        if job.program.is_none() {
            return refuse("data.kind", "`files` needs a `[program]` that reads them".into());
        }
        let distinct: BTreeSet<&String> = paths.iter().collect();
        if paths.is_empty() || distinct.len() < paths.len() {
            return refuse("data.paths", "expected at least one path, and each once".into());
        }
    }
    if tokens && !matches!(job.model, Model::Gpt { .. }) {
        return refuse("data.kind", "`tokens` needs a model of kind `gpt`".into());
    }
    Ok(())
}
