//! The errors of everything here but the process groups, whose callers act on more kinds ([`crate::c10d::Error`]).

use std::path::PathBuf;

/// Why a call did not do what it should; nothing has changed then unless the call says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch threw; the text is its own.
    #[error("libtorch: {0}")]
    Torch(String),
    /// The device is none that has what was asked for.
    #[error("device `{device}` has no {what}")]
    NoSuchDevice {
        /// The device, as `cpu` or `cuda:0`.
        device: String,
        /// What was asked for.
        what: &'static str,
    },
    /// Bytes that are no state of this generator.
    #[error("the generator state of `{device}` has {expected} bytes, and {found} were given")]
    StateLength {
        /// The device, as `cpu` or `cuda:0`.
        device: String,
        /// What its generator's state takes.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// Raw bytes were asked of a tensor that does not lie in the process's memory.
    #[error("the tensor is not a plain tensor on the cpu")]
    NotOnCpu,
    /// Raw bytes were asked of a tensor whose elements do not lie one after another.
    #[error("the tensor is not contiguous")]
    NotContiguous,
    /// A list has not as many entries as its partner.
    #[error("{found} {what} were given, and there are {expected}")]
    Count {
        /// Of what there are too few or too many.
        what: &'static str,
        /// How many are needed.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// The processor does not compute as IEEE 754 has it: other bits.
    #[error(
        "the processor's float mode is `{found}`, and `{needed}` is needed: a library that this process has loaded changed it, \
         as one that was built with -ffast-math does"
    )]
    FloatMode {
        /// What it is, in words.
        found: String,
        /// What it must be.
        needed: &'static str,
    },
    /// A kind of processor whose float mode is not known here.
    #[error(
        "the bits that a processor of architecture `{0}` computes have not been tried: levels `exact` and `portable` are for \
         x86_64 only; train with `numerics.level = \"off\"`"
    )]
    Architecture(&'static str),
    /// A parameter without a gradient.
    #[error("the gradient of `{0}` is undefined")]
    NoGradient(String),
    /// A tensor that has another shape, dtype or device than its partner.
    #[error("`{name}` is {found}, and {expected} is needed")]
    Mismatch {
        /// The tensor.
        name: String,
        /// Dtype and shape needed.
        expected: String,
        /// Dtype and shape given.
        found: String,
    },
    /// Saved state that lacks a tensor.
    #[error("the saved optimizer state has no `{0}`")]
    StateMissing(String),
    /// Saved state with a tensor that belongs to no parameter.
    #[error("the saved optimizer state has `{0}`, which belongs to no parameter here")]
    StateUnknown(String),
    /// Offsets that do not cut a tensor into parts.
    #[error("the offsets do not ascend within 0 and {length}")]
    Offsets {
        /// The number of elements to be cut.
        length: i64,
    },
    /// A file that is no TorchScript module, or cannot be read or written as one.
    #[error("`{}` as a TorchScript module: {reason}", path.display())]
    Script {
        /// The file.
        path: PathBuf,
        /// What libtorch says, its first line.
        reason: String,
    },
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // What follows is the stack of C++ calls.
        let text = error.to_string();
        Self::Torch(text.split("\nException raised from").next().unwrap_or_default().to_owned())
    }
}
