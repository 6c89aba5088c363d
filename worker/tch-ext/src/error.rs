//! The errors of this crate, except for process groups, whose callers need more kinds ([`crate::c10d::Error`]).

use std::path::PathBuf;

/// Why a call failed. Nothing has changed then, unless the documentation of the call says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch threw an exception; the text is its message.
    #[error("libtorch: {0}")]
    Torch(String),
    /// This kind of device does not support the call.
    #[error("device `{device}` has no {what}")]
    NoSuchDevice {
        /// The device, for example `cpu` or `cuda:0`.
        device: String,
        /// The missing feature, for example `generator`.
        what: &'static str,
    },
    /// The bytes are not a state of this generator.
    #[error("the generator state of `{device}` needs {expected} bytes, but {found} were given")]
    StateLength {
        /// The device, for example `cpu` or `cuda:0`.
        device: String,
        /// Length of a state of this generator, in bytes.
        expected: usize,
        /// Length of the given bytes.
        found: usize,
    },
    /// The call needs a dense tensor in CPU memory.
    #[error("the tensor is not a plain tensor on the cpu")]
    NotOnCpu,
    /// The call needs a contiguous tensor.
    #[error("the tensor is not contiguous")]
    NotContiguous,
    /// A list has the wrong number of entries.
    #[error("{found} {what} were given, but {expected} are needed")]
    Count {
        /// A noun for the entries of the list.
        what: &'static str,
        /// Number of entries that are needed.
        expected: usize,
        /// Number of given entries.
        found: usize,
    },
    /// The processor's floating-point mode differs from IEEE 754, so it computes other bits.
    #[error(
        "the processor's floating-point mode is `{found}`, but `{needed}` is needed: a library that this process has loaded changed it, \
         as libraries built with -ffast-math do; remove that library (`LD_PRELOAD`, `LD_LIBRARY_PATH`)"
    )]
    FloatMode {
        /// The mode of a thread, in words.
        found: String,
        /// The mode that all threads must have, in words.
        needed: &'static str,
    },
    /// The levels `exact` and `portable` do not support this architecture.
    #[error(
        "this machine has the architecture `{0}`, but the levels `exact` and `portable` support x86_64 only: set \
             `numerics.level = \"off\"`"
    )]
    Architecture(&'static str),
    /// A parameter without a gradient.
    #[error("the gradient of `{0}` is undefined")]
    NoGradient(String),
    /// A saved tensor has another shape or element type than the optimizer's.
    #[error("`{name}` is {found}, but {expected} is needed")]
    Mismatch {
        /// Name of the tensor in the state.
        name: String,
        /// Element type and shape that are needed.
        expected: String,
        /// Element type and shape of the given tensor.
        found: String,
    },
    /// The saved state lacks a tensor.
    #[error("the saved optimizer state has no `{0}`")]
    StateMissing(String),
    /// The saved state has a tensor that belongs to no parameter.
    #[error("the saved optimizer state has `{0}`, which belongs to no parameter of this optimizer")]
    StateUnknown(String),
    /// The offsets do not cut the tensor into parts.
    #[error("the offsets must ascend from 0 or more to at most {length}")]
    Offsets {
        /// Number of elements of the tensor.
        length: i64,
    },
    /// A file is not a TorchScript module, or cannot be read or written; or a module did something in `forward` that is not allowed.
    #[error("cannot use `{}` as a TorchScript module: {reason}", path.display())]
    Script {
        /// Path of the module's file.
        path: PathBuf,
        /// The first line of libtorch's message, or the forbidden effect.
        reason: String,
    },
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // The rest of the text is the stack of C++ calls.
        let text = error.to_string();
        Self::Torch(text.split("\nException raised from").next().unwrap_or_default().to_owned())
    }
}
