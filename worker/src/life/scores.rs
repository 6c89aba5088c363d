//! The scores of a checkpoint's model for every sample of its job's data file, as bits. Tests compare the predictions of exported models
//! with them.

use std::io::{self, Write};
use std::path::Path;

use lockstep_common::job::{Data, Job, JobError, JobSpec};
use lockstep_common::manifest::Manifest;
use lockstep_data::{Batch, DataError, InputKind, open_data_as};
use lockstep_models::{ModelError, Precision};
use lockstep_store::{BlobError, BlobStore};
use lockstep_tch_ext::memory::bytes_of;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use crate::evidence::numerics;
use crate::program::{Setup, Source};
use crate::step::{SetupError, Trainer};

/// Why scores cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum ScoresError {
    /// The checkpoint cannot be loaded.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// The job is invalid without validation samples.
    #[error("the job is invalid without validation samples")]
    Job(#[from] JobError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The forward pass failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model returns a loss instead of scores, or is a user's program.
    #[error("the model returns no scores: expected a built-in model, or `model.output = \"logits\"`")]
    None,
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// libtorch failed in a call of Lockstep's C++ shim.
    #[error("libtorch failed")]
    Shim(#[from] lockstep_tch_ext::Error),
    /// The output is closed or cannot be written.
    #[error("cannot write the scores")]
    Write(#[from] io::Error),
}

/// Writes the scores of all samples of the job's file, training and validation, in the order of the file. They are computed on the CPU,
/// `batch` samples at a time (default: a rank's micro-batch).
///
/// A line is a sample: its number, then the bits of each score in hexadecimal digits; for tokens, the bits of each token's loss. A header
/// line precedes them, except for tokens.
pub fn write(
    source: &dyn Source,
    manifest: &Manifest,
    job: &JobSpec,
    store: &Path,
    batch: Option<u64>,
    out: &mut dyn Write,
) -> Result<(), ScoresError> {
    numerics::apply(job)?;
    let store = BlobStore::existing(store)?;
    let base_dir: &Path = Path::new(&manifest.base_dir);
    let setup = Setup::new(job.clone(), base_dir.into(), Vec::new(), Device::Cpu);
    let trainer = Trainer::load(source, setup, Some((manifest, &store)))?;
    let all = open_data_as(&whole(job)?, &base_dir.into(), manifest.preprocessing.as_ref())?.train;
    let step = batch.unwrap_or(job.batch.size / u64::from(job.ranks)).max(1);
    let precision = Precision::new(job.numerics.autocast, Device::Cpu);
    for first in (0..all.len()).step_by(step as usize) {
        let positions: Vec<u64> = (first..all.len().min(first + step)).collect();
        let batch = all.batch(&positions, Device::Cpu)?;
        let scores = trainer.model().predict(&batch)?.ok_or(ScoresError::None)?;
        let rows = match all.shape().kind {
            InputKind::Tokens => token_losses(&scores, &batch, precision)?,
            InputKind::Float | InputKind::Image => scores,
        };
        if first == 0 && all.shape().kind != InputKind::Tokens {
            let outputs = rows.size().get(1).copied().unwrap_or(0);
            write!(out, "row")?;
            for output in 0..outputs {
                write!(out, ",output_{output}")?;
            }
            writeln!(out)?;
        }
        print(&rows, first, out)?;
    }
    Ok(())
}

/// The job without validation samples, so that all samples of its file are training samples.
fn whole(job: &JobSpec) -> Result<JobSpec, JobError> {
    let mut job: Job = Job::clone(job);
    job.eval = None;
    match &mut job.data {
        Data::Tokens { validation, .. }
        | Data::Csv { validation, .. }
        | Data::Npy { validation, .. }
        | Data::Safetensors { validation, .. } => *validation = 0.0,
        Data::Idx { .. } | Data::Files { .. } => {}
    }
    JobSpec::new(job)
}

/// The loss of each token; a row is a window.
fn token_losses(scores: &Tensor, batch: &Batch, precision: Precision) -> Result<Tensor, ScoresError> {
    let targets = batch.targets.f_reshape(-1)?;
    let losses = || Ok(scores.f_cross_entropy_loss(&targets, None::<&Tensor>, Reduction::None, -100, 0.0)?);
    let losses: Tensor = tch::no_grad(|| precision.run(losses))?;
    Ok(losses.f_view([batch.inputs.size()[0], -1])?)
}

fn print(rows: &Tensor, first: u64, out: &mut dyn Write) -> Result<(), ScoresError> {
    let rows = rows.f_detach()?.f_contiguous()?;
    let width = match rows.kind() {
        Kind::Double => 8,
        Kind::BFloat16 => 2,
        _ => 4,
    };
    let bytes = bytes_of(&rows)?;
    let row_bytes = bytes.len() / (rows.size()[0].max(1) as usize);
    for (row, bytes) in bytes.chunks_exact(row_bytes.max(1)).enumerate() {
        write!(out, "{}", first + row as u64)?;
        for element in bytes.chunks_exact(width) {
            write!(out, ",")?;
            for byte in element.iter().rev() {
                write!(out, "{byte:02x}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
