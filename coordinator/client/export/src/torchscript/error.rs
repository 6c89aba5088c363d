//! Why a TorchScript file did not get its weights.

use std::io;
use std::path::{Path, PathBuf};

/// Nothing usable was written.
#[derive(Debug, thiserror::Error)]
pub enum TorchScriptError {
    /// A file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The value of a tensor cannot be read.
    #[error("cannot read the checkpoint's tensor `{name}`")]
    Weight {
        /// Of the tensor.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A part of the file is not as libtorch writes it.
    #[error("`{part}` of the TorchScript file is not as PyTorch writes it: {what}")]
    Malformed {
        /// A file of the archive.
        part: String,
        /// What was found.
        what: String,
    },
    /// A file from before the present format.
    #[error(
        "the TorchScript file has no `{part}`: PyTorch before 1.4 wrote it, or another program; load it and save it again with a present \
         PyTorch (`torch.jit.save`)"
    )]
    Missing {
        /// A file of the archive.
        part: String,
    },
    /// A module that only its own code can fill.
    #[error(
        "the module `{module}` is loaded by code of its own (`__setstate__` of `{class}`), which may change the weights and is not run \
         here"
    )]
    OwnCode {
        /// Its path in the model; empty for the model.
        module: String,
        /// The class.
        class: String,
    },
    /// A tensor of the checkpoint that the module has not.
    #[error("the checkpoint's tensor `{name}` has no place in the module: {what}")]
    NoPlace {
        /// Of the tensor.
        name: String,
        /// What is there instead.
        what: String,
    },
    /// A tensor that the module has otherwise.
    #[error("tensor `{name}` is {checkpoint} in the checkpoint and {module} in the module")]
    Unlike {
        /// Of the tensor.
        name: String,
        /// Type and shape.
        checkpoint: String,
        /// Type and shape.
        module: String,
    },
    /// Elements with two values.
    #[error(
        "tensors `{name}` and `{other}` lie in the same memory of the module, and the checkpoint has different values for it"
    )]
    Conflict {
        /// One of them.
        name: String,
        /// The other one, or the same, which then lies on itself.
        other: String,
    },
    /// A tensor that would keep the value that it had before training.
    #[error("the module's tensor `{name}` is not in the checkpoint, and would keep its value from before training")]
    Uncovered {
        /// Of the tensor.
        name: String,
    },
}

impl TorchScriptError {
    /// Puts `action` and `path` to the error of a file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// An error of the file `part` of the archive.
    pub(super) fn malformed(part: &str, what: impl Into<String>) -> Self {
        Self::Malformed { part: part.to_owned(), what: what.into() }
    }
}
