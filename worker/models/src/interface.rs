//! The interface of models.

use lockstep_common::seed::{Stream, derive};
use lockstep_data::Batch;
use tch::Tensor;

use super::ModelError;

/// A trained tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Dotted path of the tensor in the model, for example `blocks.0.mlp.up.weight`.
    pub name: String,
    /// A leaf that requires gradients. It shares its storage with the model, so updates in place change the model.
    pub tensor: Tensor,
    /// Whether weight decay applies by default: to tensors with two or more axes (matrices and kernels), not to biases and normalisation
    /// weights. `optimizer.decay_all` overrides it.
    pub decay: bool,
}

/// The part of a run that a forward pass belongs to, and the methods by which a model's code logs values.
///
/// Random numbers in a forward pass may depend only on this value and on torch's generators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Optimizer steps completed; 0 in the first step.
    pub step: u64,
    /// The rank whose micro-batch is computed; in an evaluation, the number of the batch.
    pub rank: u32,
    /// Whether the pass is part of a training step. If not, dropout is off and no state may be changed.
    pub training: bool,
    /// The root seed of the job (`seed`).
    pub root: u64,
}

impl Context {
    /// A seed for the model's own generators: another one for each micro-batch, the same one on any number of processes.
    pub fn seed(&self) -> u64 {
        derive(self.root, if self.training { Stream::User } else { Stream::Eval }, self.step, self.rank)
    }
}

/// Sums over the samples of an evaluated batch. Lockstep adds them over all batches, and divides by the number of samples.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalSums {
    /// Sum of the losses of all samples (for tokens: of all tokens).
    pub loss_sum: f64,
    /// Number of correctly classified samples (tokens); `None` if there are no classes.
    pub right: Option<u64>,
    /// Number of samples (tokens).
    pub count: u64,
    /// For each name in [`Model::metrics`], in that order, the sum of the metric over all samples.
    pub metrics: Vec<f64>,
}

impl EvalSums {
    /// The sums of a batch of `count` samples with the mean loss `loss`, without classes and metrics.
    pub fn of_mean(loss: f64, count: u64) -> Self {
        Self { loss_sum: loss * count as f64, right: None, count, metrics: Vec::new() }
    }
}

/// A model, as the training loop uses it.
pub trait Model {
    /// The parameters in the order of definition, which must be the same in every process.
    fn parameters(&self) -> &[Parameter];

    /// The state that training changes without gradients (for example batch-norm statistics), by dotted path; updated in place.
    fn buffers(&self) -> &[(String, Tensor)];

    /// The mean loss over `batch`: a scalar, to be differentiated.
    ///
    /// In training it draws from torch's generator of the device (dropout), and updates buffers.
    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, ModelError>;

    /// Evaluates `batch` in evaluation mode. Afterwards generators and buffers are as before, and no autograd graph is kept.
    fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, ModelError>;

    /// The scores of `batch` in evaluation mode, one row for each target; `None` for a model without scores. Has no side effects, as
    /// [`Model::evaluate`].
    fn predict(&self, _batch: &Batch) -> Result<Option<Tensor>, ModelError> {
        Ok(None)
    }

    /// Names of the metrics of an evaluation beside loss and accuracy.
    fn metrics(&self) -> &[&'static str] {
        &[]
    }

    /// Checks that no state outside of parameters and buffers has changed since the model was built, as far as the model can detect it.
    fn check(&self) -> Result<(), ModelError> {
        Ok(())
    }

    /// Whether a forward pass may make changes that libtorch's version counters do not count. Every pass is then checked closely.
    fn evades(&self) -> bool {
        false
    }

    /// Sets whether [`Watched`](super::Watched) checks the next passes closely. Without it, the call has no effect.
    fn look_closely(&self, _closely: bool) {}

    /// The tree of modules: a line for each, with its shape and number of parameters.
    fn describe(&self) -> String;
}
