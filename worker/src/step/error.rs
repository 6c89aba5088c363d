//! Why training cannot begin, or stops.

use lockstep_common::sampler::SamplerError;
use lockstep_data::DataError;
use lockstep_data::files::FilesError;
use lockstep_models::ModelError;
use tch::TchError;

use crate::checkpoint::{LoadError, Unlike};
use crate::evidence::Divergence;
use crate::observe::{LogError, MOST_FEATURES, MeasureError};
use crate::reduce::ExchangeError;

/// Why a run cannot begin in this process. Another attempt would fail in the same way.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The data does not fit the job.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The batch size does not fit the number of samples or ranks.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The job evaluates, but the data has no validation samples.
    #[error(
        "the job has `[eval]`, but its data has no validation samples: remove `[eval]`, or return them from `Program::data`"
    )]
    NoValidation,
    /// Feature importance is measured only for columns of tables and cells of images.
    #[error(
        "key `eval.feature_importance`: cannot be measured for inputs of shape {0:?}: expected images, or a table of at most {most} \
         columns; remove the key", most = MOST_FEATURES
    )]
    Features(Vec<i64>),
    /// The run cannot resume from the checkpoint.
    #[error("cannot resume from the checkpoint")]
    Load(#[from] LoadError),
    /// The preprocessing of the data differs from the checkpoint's.
    #[error("cannot resume from the checkpoint")]
    Preprocessing(#[from] Unlike),
    /// The optimizer cannot be created, for example because parameters are on several devices.
    #[error("cannot create the optimizer")]
    Optimizer(#[from] lockstep_tch_ext::Error),
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The connection to another process is lost. The run restarts from its last checkpoint.
    #[error("the exchange with the other processes failed at step {step}")]
    Exchange {
        /// Steps completed.
        step: u64,
        /// How the connection was lost.
        #[source]
        source: ExchangeError,
    },
    /// A loss, a gradient or the state has a NaN or an infinity.
    #[error(
        "the {what} of step {step} is {value}{}: the run stops, its last checkpoint is kept",
        .first.as_ref().map_or_else(String::new, |first| format!(", first in {first}"))
    )]
    NotFinite {
        /// Steps completed, including the one that failed.
        step: u64,
        /// `loss`, `gradient norm` or `state`.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The first tensor that is not finite, in words; `None` if no process found it.
        first: Option<String>,
    },
    /// The states of the processes differ: one of them computed or stored something wrong.
    #[error(
        "silent corruption: after step {step} the states of the processes differ{}; all agreed after step {agreed}",
        differing(.divergence)
    )]
    Corrupt {
        /// Steps completed.
        step: u64,
        /// The last step with equal fingerprints, or the step at which this process began.
        agreed: u64,
        /// The differing tensors, and the fingerprints of each process.
        divergence: Divergence,
    },
    /// The floating-point mode of a computing thread has changed since the start.
    #[error(
        "step {step} was computed in another floating-point mode than `numerics.level` promises: the run stops, its last \
         checkpoint is kept"
    )]
    FloatMode {
        /// Steps completed.
        step: u64,
        /// The mode that was found, and the expected one.
        #[source]
        source: lockstep_tch_ext::Error,
    },
    /// The description of this process's share of a checkpoint is too large. Found before the first step.
    #[error(
        "no checkpoint can be saved: the description of the {ranks} ranks and the tensors of process {process} has {bytes} bytes, \
         and the coordinator accepts at most {most}; lower `ranks`, or raise `world.processes`", most = lockstep_rpc::MAX_SHARE_BYTES
    )]
    Indescribable {
        /// Index of the process.
        process: u32,
        /// Number of ranks that the process hosts.
        ranks: usize,
        /// Size of the description in bytes.
        bytes: usize,
    },
    /// A value that the model's code logs cannot be recorded.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A [`StepHook`](super::StepHook) failed.
    #[error("{0}")]
    Hook(String),
    /// A batch cannot be read.
    #[error("cannot read the batch of step {step}")]
    Data {
        /// Steps completed.
        step: u64,
        /// The file and the position that cannot be read.
        #[source]
        source: DataError,
    },
    /// A data file changed during training, or cannot be compared.
    #[error(transparent)]
    Changed(#[from] FilesError),
    /// A forward or backward pass failed.
    #[error("the model failed at step {step}")]
    Model {
        /// Steps completed.
        step: u64,
        /// The error of the model, of the user's program or of libtorch.
        #[source]
        source: ModelError,
    },
    /// An operator of libtorch failed, for example because memory ran out.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// libtorch failed in a call of Lockstep's C++ shim.
    #[error("libtorch failed")]
    Shim(#[from] lockstep_tch_ext::Error),
}

/// The differing tensors in words; empty if they are not known.
fn differing(divergence: &Divergence) -> String {
    let Some(first) = divergence.tensors.first() else { return String::new() };
    format!(" in {} tensors, the first of them `{first}`", divergence.tensors.len())
}

impl TrainError {
    /// From the error of a measurement on the state after `step`.
    pub(super) fn measuring(step: u64, error: MeasureError) -> Self {
        match error {
            MeasureError::Data(source) => Self::Data { step, source },
            MeasureError::Model(source) => Self::Model { step, source },
            MeasureError::Exchange(source) => Self::Exchange { step, source },
            MeasureError::Torch(error) => Self::Torch(error),
            MeasureError::Shim(error) => Self::Shim(error),
        }
    }
}
