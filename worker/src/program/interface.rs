//! The trait that a user's program implements, and the internal trait of everything that can be trained.

use lockstep_data::{Batch, DataError, DataSets, SampleShape, open_data_as};
use lockstep_models::{Context, EvalSums, Model, ModelError};
use tch::Tensor;
use tch::nn;

use super::Setup;

/// The error of a user's program. Its text and its causes become the reason why the run failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A user's training program.
///
/// # Rules for reproducible runs
///
/// A loss must depend only on the weights, the batch, torch's generators and the [`Context`]. So a program must not use the clock, another
/// source of randomness, the iteration order of a hash map, or state outside its variables.
///
/// - Torch's generators are seeded before every call, by step and rank. Seed any other generator with [`Context::seed`].
/// - State that lasts from step to step must be a variable without gradient below `root`. Such variables are saved in checkpoints and
///   restored. After each step every rank has the values of rank 0.
/// - An error or a panic in any method ends the run; its text is the reason.
pub trait Program: Sized + 'static {
    /// Opens the training samples and, if the job has `[eval]`, the validation samples. The default opens the format that `data.kind`
    /// names; a job with `kind = "files"` needs its own implementation. [`Setup::file`] and [`Setup::files`] give the paths of the data
    /// files.
    ///
    /// # Errors
    /// Any error fails the run, with its text as the reason.
    fn data(setup: &Setup) -> Result<DataSets, Failure> {
        Ok(open_data_as(setup.job(), setup.data(), setup.known())?)
    }

    /// Builds the model for samples of `shape`. All parameters and all state that lasts must be variables below `root`, on its device.
    ///
    /// Torch's generators are seeded before the call, so every process gets the same initial weights. The order in which parameters are
    /// created is part of the run's numerics fingerprint.
    ///
    /// # Errors
    /// Any error fails the run, with its text as the reason.
    fn build(root: &nn::Path<'_>, shape: &SampleShape, setup: &Setup) -> Result<Self, Failure>;

    /// Returns the mean loss over `batch`: one element of type `Float`, `Double` or `BFloat16`. If [`Context::training`], Lockstep
    /// differentiates it by the parameters.
    ///
    /// # Errors
    /// Any error fails the run, with its text as the reason.
    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, Failure>;

    /// Names of the metrics that [`Program::evaluate`] returns in [`EvalSums::metrics`], in that order. They are reported as means over the
    /// samples. Names must be unique and not empty; `loss`, `accuracy` and `perplexity` are reserved.
    fn metrics() -> &'static [&'static str] {
        &[]
    }

    /// Evaluates `batch`, without gradients. Afterwards Lockstep restores torch's generators and all buffers, so an evaluation does not
    /// change the training. The default returns the loss only.
    ///
    /// # Errors
    /// Any error fails the run, with its text as the reason.
    fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, Failure> {
        let samples = batch.inputs.size().first().copied().unwrap_or(0) as u64;
        Ok(EvalSums::of_mean(self.loss(batch, context)?.f_double_value(&[])?, samples))
    }
}

/// Data and model of a run: the built-in ones, or those of a user's program.
pub trait Source {
    /// Opens the data of a run.
    fn data(&self, setup: &Setup) -> Result<DataSets, DataError>;

    /// Builds the model of a run for samples of `shape`; seeds torch's generators.
    fn model(&self, shape: &SampleShape, setup: &Setup) -> Result<Box<dyn Model>, ModelError>;
}
