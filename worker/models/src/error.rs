//! The errors of models.

/// Why a model cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The samples do not fit the model.
    #[error("a model of kind `{model}` takes {expected}, but the data has {found}")]
    Inputs {
        /// Value of `model.kind`.
        model: &'static str,
        /// Samples that the model takes, in words.
        expected: String,
        /// Samples of the data, in words.
        found: String,
    },
    /// The targets do not fit the loss or the number of outputs.
    #[error("the loss `{loss}` over {outputs} outputs takes {expected}, but the data has {found}")]
    Targets {
        /// Value of `batch.loss`.
        loss: &'static str,
        /// Number of outputs of the model.
        outputs: i64,
        /// Targets that the loss takes, in words.
        expected: &'static str,
        /// Targets of the data, in words.
        found: String,
    },
    /// A TorchScript module that cannot be trained.
    #[error("TorchScript module `{}`: {detail}", path.display())]
    Script {
        /// Path of the module's file.
        path: std::path::PathBuf,
        /// The obstacle, and the way to remove it.
        detail: String,
    },
    /// The output of a TorchScript module does not fit `model.output`.
    #[error("the module returned {found}, but `model.output = \"{output}\"` needs {expected}")]
    Output {
        /// Value of `model.output`.
        output: &'static str,
        /// Type and shape that are needed.
        expected: String,
        /// Type and shape that were returned.
        found: String,
    },
    /// A forward pass changed a parameter.
    #[error(
        "the forward pass changed the parameter `{0}`, which only the optimizer may change: keep values that the model itself \
         changes in a buffer"
    )]
    Changed(String),
    /// A forward pass changed the type or shape of a buffer.
    #[error(
        "the forward pass changed the buffer `{name}` from {expected} to {found}: a buffer must keep its type and shape"
    )]
    Buffer {
        /// Name of the buffer.
        name: String,
        /// Type and shape before the pass.
        expected: String,
        /// Type and shape after the pass.
        found: String,
    },
    /// A forward pass left a buffer that is part of an autograd graph.
    #[error(
        "the forward pass left the buffer `{0}` with an autograd history, which checkpoints do not hold: detach the values of the buffer \
         (`.detach()`), or change it under `torch.no_grad()`"
    )]
    History(String),
    /// A forward pass changed the strides of a tensor, or whether it requires gradients.
    #[error(
        "the forward pass changed the {what} `{name}` from {before} to {after}, which checkpoints do not hold: change a copy of it instead"
    )]
    Form {
        /// `parameter` or `buffer`.
        what: &'static str,
        /// Name of the tensor in the model.
        name: String,
        /// Its strides, type or flag before the pass, in words.
        before: String,
        /// Its strides, type or flag after the pass, in words.
        after: String,
    },
    /// A tensor that checkpoints cannot store and restore.
    #[error("the {what} `{name}` {reason}")]
    Memory {
        /// `parameter` or `buffer`.
        what: &'static str,
        /// Name of the tensor in the model.
        name: String,
        /// The predicate of the message: the obstacle, and the way to remove it.
        reason: &'static str,
    },
    /// Two parameters that share elements, but are not the same tensor.
    #[error(
        "the parameters `{0}` and `{1}` share memory and are not one tensor (a transposed view or a slice): give each its own \
         memory (`.clone()`), or use one parameter in both places"
    )]
    Overlap(String, String),
    /// A job with `[program]` was given to `worker-rank`, which has only the built-in models.
    #[error("the job has `[program]`, and `worker-rank` has only the built-in models: train the job with that program")]
    NoModel,
    /// The user's program failed.
    #[error("the program failed")]
    Program(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An operator of libtorch failed.
    #[error("libtorch could not run the model")]
    Torch(#[from] tch::TchError),
    /// libtorch failed in a call of Lockstep's C++ shim.
    #[error("libtorch could not run the model")]
    Shim(#[from] lockstep_tch_ext::Error),
}
