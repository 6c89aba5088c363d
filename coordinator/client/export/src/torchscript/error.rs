//! Errors of writing weights into a TorchScript file.

use std::io;
use std::path::{Path, PathBuf};

/// Why the weights were not written. No usable file exists then.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "most fields are what their names say")]
pub enum TorchScriptError {
    /// A failed file operation.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The failed operation, a verb.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A tensor of the checkpoint that cannot be read.
    #[error("cannot read the checkpoint's tensor `{name}`")]
    Weight {
        name: String,
        #[source]
        source: io::Error,
    },
    /// A part of the file that libtorch could not have written.
    #[error("`{part}` of the TorchScript file is not valid: {what}")]
    Malformed {
        /// Name of the file in the archive.
        part: String,
        what: String,
    },
    /// A file without a part that the present format has.
    #[error(
        "the TorchScript file has no `{part}`: it was written by PyTorch before 1.4 or by another program; load it with a current PyTorch and \
         save it again (`torch.jit.save`)"
    )]
    Missing {
        /// Name of the file in the archive.
        part: String,
    },
    /// A module with code that runs when it is loaded.
    #[error(
        "the module `{module}` runs its own code when it is loaded (`__setstate__` of `{class}`), which may change the weights and \
         which an export does not run"
    )]
    OwnCode {
        /// Path in the model; empty for the model itself.
        module: String,
        class: String,
    },
    /// A tensor of the checkpoint that the module does not have.
    #[error("the module has no tensor `{name}` of the checkpoint: {what}")]
    NoPlace {
        name: String,
        /// The existing object, in words.
        what: String,
    },
    /// A tensor with another type or shape in the module.
    #[error("tensor `{name}` is {checkpoint} in the checkpoint, but {module} in the module")]
    Unlike {
        name: String,
        /// Type and shape.
        checkpoint: String,
        /// Type and shape.
        module: String,
    },
    /// Two tensors that share memory in the module and differ in the checkpoint.
    #[error("tensors `{name}` and `{other}` share memory in the module, but have different values in the checkpoint")]
    Conflict {
        name: String,
        /// The other tensor; equal to `name` if the tensor overlaps itself.
        other: String,
    },
    /// A tensor of the module that the checkpoint lacks.
    #[error(
        "the module's tensor `{name}` is not in the checkpoint, so the export would contain its value from before training"
    )]
    Uncovered { name: String },
}

impl TorchScriptError {
    /// Adds the failed operation and the path to an I/O error.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// A [`Self::Malformed`] of the file `part` of the archive.
    pub(super) fn malformed(part: &str, what: impl Into<String>) -> Self {
        Self::Malformed { part: part.to_owned(), what: what.into() }
    }
}
