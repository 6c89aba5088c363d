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
