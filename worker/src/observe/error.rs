//! The error of measurements.

use lockstep_data::DataError;
use lockstep_models::ModelError;
use tch::TchError;

use crate::reduce::ExchangeError;

/// Why a measurement on validation samples failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Torch(#[from] TchError),
    #[error(transparent)]
    Shim(#[from] lockstep_tch_ext::Error),
}
