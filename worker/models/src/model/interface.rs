//! The interface of a model.

use tch::Tensor;

use super::ModelError;
use crate::Batch;

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

/// Sums over the samples of an evaluated batch, to be added up over batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalSums {
    /// Sum of the loss of each sample (of each token, for tokens).
    pub loss_sum: f64,
    /// How many were classified right; `None` where there are no classes.
    pub right: Option<u64>,
    /// How many samples (tokens) there were.
    pub count: u64,
}

/// A model in training.
pub trait Model {
    /// What is trained, in the order of definition, which is the same in every process.
    fn parameters(&self) -> &[Parameter];

    /// What training changes without gradients (batch-norm statistics and the like) by dotted path; updated in place.
    fn buffers(&self) -> &[(String, Tensor)];

    /// The mean loss over `batch` in training mode: a scalar to differentiate.
    ///
    /// Draws (dropout) from torch's generator of the device; updates buffers.
    fn loss(&self, batch: &Batch) -> Result<Tensor, ModelError>;

    /// The loss over `batch` in evaluation mode. Leaves no trace: draws nothing, changes no buffer, keeps no graph.
    fn evaluate(&self, batch: &Batch) -> Result<EvalSums, ModelError>;

    /// The tree of modules, one line each with its shape and number of parameters.
    fn describe(&self) -> String;
}
