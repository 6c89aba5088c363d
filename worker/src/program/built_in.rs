//! What Lockstep itself can train, as `worker-rank` does.

use std::process::ExitCode;

use lockstep_data::{DataError, DataSets, SampleShape, open_data_as};
use lockstep_models::{Model, ModelError, build_model};
use lockstep_tch_ext::exit::skip_static_destructors;

use super::{Setup, Source};
use crate::life::command;

/// The models and formats that Lockstep brings.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn;

impl BuiltIn {
    /// The `main` of `worker-rank`.
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
