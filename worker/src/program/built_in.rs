//! The built-in models and data formats, which `worker-rank` trains.

use std::process::ExitCode;

use lockstep_data::{DataError, DataSets, SampleShape, open_data_as};
use lockstep_models::{Model, ModelError, build_model};
use lockstep_tch_ext::exit::skip_static_destructors;

use super::{Setup, Source};
use crate::life::command;

/// The built-in models, TorchScript modules, and the built-in data formats.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn;

impl BuiltIn {
    /// The `main` function of `worker-rank`. Skips the static destructors of libtorch at the end of the process.
    pub fn main() -> ExitCode {
        skip_static_destructors();
        command::run(&Self)
    }
}

impl Source for BuiltIn {
    fn data(&self, setup: &Setup) -> Result<DataSets, DataError> {
        open_data_as(setup.job(), setup.data(), setup.known())
    }

    fn model(&self, shape: &SampleShape, setup: &Setup) -> Result<Box<dyn Model>, ModelError> {
        build_model(setup.job(), shape, setup.data(), setup.device())
    }
}
