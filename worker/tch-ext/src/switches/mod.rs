//! Settings of libtorch and of the processor that change bits.

pub mod autocast;
pub mod determinism;
pub mod float_mode;
pub mod processor;
