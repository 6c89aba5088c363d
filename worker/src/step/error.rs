//! Why training does not begin, or stops.

use lockstep_common::sampler::SamplerError;
use lockstep_data::DataError;
use lockstep_data::files::FilesError;
use lockstep_models::ModelError;
use tch::TchError;

use crate::checkpoint::{LoadError, Unlike};
use crate::evidence::Divergence;
use crate::observe::{LogError, MOST_FEATURES, MeasureError};
use crate::reduce::ExchangeError;

/// Why a run cannot begin here. It would fail again.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The data is not what the job says.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The batches do not fit the data.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Nothing to evaluate on.
    #[error("the job has `[eval]`, and its program keeps no samples for it")]
    NoValidation,
    /// Inputs whose features cannot be measured one by one.
    #[error(
        "key `eval.feature_importance`: an input of shape {0:?} has no columns and no image's cells to tell apart, or more than \
         {most} of them", most = MOST_FEATURES
    )]
    Features(Vec<i64>),
    /// The checkpoint cannot be resumed from.
    #[error("cannot resume")]
    Load(#[from] LoadError),
    /// The data's samples would become other inputs than the checkpoint's.
    #[error("cannot resume")]
    Preprocessing(#[from] Unlike),
    /// The optimizer cannot be made.
    #[error("cannot make the optimizer")]
    Optimizer(#[from] lockstep_tch_ext::Error),
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Another process is gone or silent: this one may be replaced, and the run goes on from its last checkpoint.
    #[error("the exchange with the other processes failed at step {step}")]
    Exchange {
        /// Steps completed.
        step: u64,
        /// Why.
        #[source]
        source: ExchangeError,
    },
    /// Training has diverged.
    #[error(
        "the {what} of step {step} is {value}{}: the run stops, its last checkpoint is kept",
        .first.as_ref().map_or_else(String::new, |first| format!(", first in {first}"))
    )]
    NotFinite {
        /// Steps completed with the one that failed.
        step: u64,
        /// `loss`, `gradient norm` or `state`.
        what: &'static str,
        /// What it is.
        value: f64,
        /// Where it began, if one of this process's ranks can tell.
        first: Option<String>,
    },
    /// Processes that should hold the same state do not: one of them computed or kept something wrong.
    #[error(
        "silent corruption: after step {step} the processes differ in {} tensors, the first of them `{}`; all agreed after \
         step {agreed}",
        .divergence.tensors.len(), .divergence.tensors.first().map_or("unknown", String::as_str)
    )]
    Corrupt {
        /// Steps completed.
        step: u64,
        /// The last fingerprint step at which all agreed; where this process began, if none was taken since.
        agreed: u64,
        /// In what.
        divergence: Divergence,
    },
    /// A thread that computes does so in another mode than at the start.
    #[error(
        "step {step} was computed in another mode than the run promises: the run stops, its last checkpoint is kept"
    )]
    FloatMode {
        /// Steps completed.
        step: u64,
        /// What the mode is.
        #[source]
        source: lockstep_tch_ext::Error,
    },
    /// No checkpoint could be saved.
    #[error(
        "no checkpoint can be saved: what process {process} would say of its {ranks} ranks and its tensors takes {bytes} bytes, \
         and the coordinator takes {most}; set fewer `ranks`, or more `world.processes`", most = lockstep_rpc::MAX_SHARE_BYTES
    )]
    Indescribable {
        /// The number of the process.
        process: u32,
        /// The ranks that it hosts.
        ranks: usize,
        /// Bytes of the description.
        bytes: usize,
    },
    /// What the model's code logs cannot be tracked.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A hook into the loop failed.
    #[error("{0}")]
    Hook(String),
    /// A batch could not be made.
    #[error("cannot read the batch of step {step}")]
    Data {
        /// Steps completed.
        step: u64,
        /// Why.
        #[source]
        source: DataError,
    },
    /// A data file is not what it was when training began, or cannot be compared.
    #[error(transparent)]
    Changed(#[from] FilesError),
    /// The model failed.
    #[error("the model failed at step {step}")]
    Model {
        /// Steps completed.
        step: u64,
        /// Why.
        #[source]
        source: ModelError,
    },
    /// libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// libtorch failed, behind our own shim.
    #[error("libtorch failed")]
    Shim(#[from] lockstep_tch_ext::Error),
}

impl TrainError {
    /// Why the state after `step` could not be measured.
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
