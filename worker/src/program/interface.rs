//! What a user's program implements, and what is trained of it.

use lockstep_data::{Batch, DataError, DataSets, SampleShape, open_data_as};
use lockstep_models::{Context, EvalSums, Model, ModelError};
use tch::Tensor;
use tch::nn;

use super::Setup;

/// Whatever a program fails with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A user's training program.
///
/// **What it must hold to**, for its runs to be repeatable: a loss is a function of the weights, the batch, torch's
/// generators and the [`Context`]. No clock, no other randomness, no hash map's order, no state outside of its variables. Torch's
/// generators are set before every call, by step and rank; [`Context::seed`] is for a generator of another kind. What a program
/// keeps from step to step is a variable without gradient below `root`: it is saved and restored, and follows rank 0's.
pub trait Program: Sized + 'static {
    /// Opens the data. By default in the format that the job's `[data]` names; a job with `kind = "files"` needs this.
    ///
    /// # Errors
    /// As it likes: the run fails, and says it.
    fn data(setup: &Setup) -> Result<DataSets, Failure> {
        Ok(open_data_as(setup.job(), setup.data(), setup.known())?)
    }

    /// Builds the model for samples of `shape`, with all that is trained or kept as variables below `root`, on its device.
    /// Torch's generators are seeded: the same weights in every process.
    ///
    /// # Errors
    /// As it likes: the run fails, and says it.
    fn build(root: &nn::Path<'_>, shape: &SampleShape, setup: &Setup) -> Result<Self, Failure>;

    /// The mean loss over `batch`, a scalar; to be differentiated if [`Context::training`].
    ///
    /// # Errors
    /// As it likes: the run fails, and says it.
    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, Failure>;

    /// Names of what [`Program::evaluate`] gives beside loss and accuracy: means over the samples. `loss`, `accuracy` and
    /// `perplexity` are taken.
    fn metrics() -> &'static [&'static str] {
        &[]
    }

    /// Evaluates `batch`, without gradients; whatever it draws or changes is put back. By default, the loss alone.
    ///
    /// # Errors
    /// As it likes: the run fails, and says it.
    fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, Failure> {
        let samples = batch.inputs.size().first().copied().unwrap_or(0) as u64;
        Ok(EvalSums::of_mean(self.loss(batch, context)?.f_double_value(&[])?, samples))
    }
}

/// What is trained, and on what.
pub trait Source {
    /// Opens the data of a run.
    fn data(&self, setup: &Setup) -> Result<DataSets, DataError>;

    /// Builds the model of a run for samples of `shape`; seeds torch's generators.
    fn model(&self, shape: &SampleShape, setup: &Setup) -> Result<Box<dyn Model>, ModelError>;
}
