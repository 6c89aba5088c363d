//! Evidence that two runs, processes or machines compute the same bits: fingerprints of the state, the numerics fingerprint, and golden
//! bits of operators.

mod fingerprint;
mod gradient_history;
mod libraries;
pub mod numerics;
pub mod operators;

pub use fingerprint::{Divergence, Fingerprinter, Taken};
pub(crate) use gradient_history::GradientHistory;
