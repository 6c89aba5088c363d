//! The interface of a model.

use lockstep_common::seed::{Stream, derive};
use lockstep_data::Batch;
use tch::Tensor;

use super::ModelError;

/// A tensor that is trained.
#[derive(Debug)]
pub struct Parameter {
    /// Dotted path of the tensor in the model, as `blocks.0.mlp.up.weight`.
    pub name: String,
    /// A leaf that requires gradients. The model reads the same storage: updates are made in place.
    pub tensor: Tensor,
    /// Whether weight decay applies by default: to matrices and kernels (two axes or more), not to biases and
    /// normalisation weights.
    pub decay: bool,
}

/// Which part of a run a loss is computed for. What it draws may depend on this, and on torch's generators, and on nothing
/// else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Optimizer steps completed.
    pub step: u64,
    /// The rank whose micro-batch it is; in an evaluation, the number of the batch.
    pub rank: u32,
    /// Whether it is for a training step. If not: dropout and the like are off, and nothing may be changed.
    pub training: bool,
    /// The job's root seed.
    pub root: u64,
}

impl Context {
    /// For a generator of the model's own, anew for each micro-batch.
    pub fn seed(&self) -> u64 {
        derive(self.root, if self.training { Stream::User } else { Stream::Eval }, self.step, self.rank)
    }
}

/// Sums over the samples of an evaluated batch, to be added up over batches.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalSums {
    /// Sum of the loss of each sample (of each token, for tokens).
    pub loss_sum: f64,
    /// How many were classified right; `None` where there are no classes.
    pub right: Option<u64>,
    /// How many samples (tokens) there were.
    pub count: u64,
    /// Sums over the samples of each of [`Model::metrics`], in that order.
    pub metrics: Vec<f64>,
}

impl EvalSums {
    /// Of a batch of `count` samples with this mean loss.
    pub fn of_mean(loss: f64, count: u64) -> Self {
        Self { loss_sum: loss * count as f64, right: None, count, metrics: Vec::new() }
    }
}

/// A model in training.
pub trait Model {
    /// What is trained, in the order of definition, which is the same in every process.
    fn parameters(&self) -> &[Parameter];

    /// What training changes without gradients (batch-norm statistics and the like) by dotted path; updated in place.
    fn buffers(&self) -> &[(String, Tensor)];

    /// The mean loss over `batch`: a scalar to differentiate.
    ///
    /// In training draws (dropout) from torch's generator of the device, and updates buffers.
    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, ModelError>;

    /// The loss over `batch` in evaluation mode. Leaves no trace: draws nothing, changes no buffer, keeps no graph.
    fn evaluate(&self, batch: &Batch, context: &Context) -> Result<EvalSums, ModelError>;

    /// The scores of `batch` in evaluation mode, a row for each target; `None` for a model that gives none. Leaves no trace, as
    /// [`Model::evaluate`].
    fn predict(&self, _batch: &Batch) -> Result<Option<Tensor>, ModelError> {
        Ok(None)
    }

    /// Names of what an evaluation gives beside loss and accuracy: means over the samples.
    fn metrics(&self) -> &[&'static str] {
        &[]
    }

    /// That nothing which checkpoints do not hold has changed since the model was built, as far as the model can tell.
    fn check(&self) -> Result<(), ModelError> {
        Ok(())
    }

    /// Whether a forward pass may change what libtorch's version counter does not count. Each pass is then looked at closely.
    fn evades(&self) -> bool {
        false
    }

    /// Whether the next passes are looked at more closely than others, where somebody watches.
    fn look_closely(&self, _closely: bool) {}

    /// The tree of modules, one line each with its shape and number of parameters.
    fn describe(&self) -> String;
}
