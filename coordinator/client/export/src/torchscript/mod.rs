//! A TorchScript file with other weights, made without loading it.
//!
//! A TorchScript file is a program: whoever loads it runs its `__setstate__`. This module reads the archive as data only. It knows
//! the ZIP container, the few opcodes of libtorch's pickles and the heads of the classes in the module's code, and calls nothing.

mod archive;
mod classes;
mod error;
mod pickle;
mod replace;
mod tensor;
#[cfg(test)]
mod tests;
mod writer;

pub use error::TorchScriptError;
pub use replace::{Weight, replace_weights};
