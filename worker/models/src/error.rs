//! Why a model cannot be built or run.

/// A model that cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Samples that the model cannot take.
    #[error("a model of kind `{model}` takes {expected}, and the data has {found}")]
    Inputs {
        /// The model's kind.
        model: &'static str,
        /// What it takes.
        expected: String,
        /// What there is.
        found: String,
    },
    /// Targets that the loss or the model's outputs do not fit.
    #[error("the loss `{loss}` over {outputs} outputs takes {expected}, and the data has {found}")]
    Targets {
        /// The loss.
        loss: &'static str,
        /// The model's outputs.
        outputs: i64,
        /// What is needed.
        expected: &'static str,
        /// What there is.
        found: String,
    },
    /// A TorchScript module that cannot be trained.
    #[error("TorchScript module `{}`: {detail}", path.display())]
    Script {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The answer of a TorchScript module is not what the job says.
    #[error("the module returned {found} where `model.output = \"{output}\"` asks for {expected}")]
    Output {
        /// The job's `model.output`.
        output: &'static str,
        /// What is needed.
        expected: String,
        /// What was returned.
        found: String,
    },
    /// A forward pass changed a parameter.
    #[error(
        "the forward pass changed the parameter `{0}`, which only the optimizer may: keep values that the model changes itself \
         in a buffer"
    )]
    Changed(String),
    /// A forward pass gave a buffer another type or shape.
    #[error(
        "the forward pass made the buffer `{name}` {found}, and it was {expected}: a buffer keeps its type and shape"
    )]
    Buffer {
        /// The buffer.
        name: String,
        /// Type and shape before the pass.
        expected: String,
        /// Type and shape after it.
        found: String,
    },
    /// A forward pass left a buffer that carries gradients.
    #[error(
        "the forward pass left the buffer `{0}` with a history of gradients, which no checkpoint holds: detach what the buffer is \
         made of (`.detach()`), or change it under `torch.no_grad()`"
    )]
    History(String),
    /// A forward pass changed how a tensor lies in memory, or whether it requires gradients.
    #[error(
        "the forward pass changed the {what} `{name}` from {before} to {after}, which no checkpoint holds: leave it as it was, and \
         change a copy"
    )]
    Form {
        /// A noun for the message: `parameter` or `buffer`.
        what: &'static str,
        /// The tensor's name in the module.
        name: String,
        /// Its strides, type or flag before the pass.
        before: String,
        /// The same after the pass.
        after: String,
    },
    /// A tensor whose bits cannot be kept and restored.
    #[error("the {what} `{name}` {reason}")]
    Memory {
        /// `parameter` or `buffer`.
        what: &'static str,
        /// The tensor.
        name: String,
        /// What it is, and what to do.
        reason: &'static str,
    },
    /// Two parameters that share elements and are not one tensor.
    #[error(
        "the parameters `{0}` and `{1}` share memory and are not one tensor (a transposed view or a slice): give each its own \
         memory (`.clone()`), or use one parameter in both places"
    )]
    Overlap(String, String),
    /// A job without a model was given to a program that brings none.
    #[error("the job brings a program of its own, and `worker-rank` is not it")]
    NoModel,
    /// The user's program failed.
    #[error("the program failed")]
    Program(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// libtorch threw.
    #[error("libtorch could not run the model")]
    Torch(#[from] tch::TchError),
    /// libtorch threw, behind our own shim.
    #[error("libtorch could not run the model")]
    Shim(#[from] lockstep_tch_ext::Error),
}
