//! Models: named parameters and buffers in a fixed order, a loss to train on and an evaluation that leaves no trace. Built-in
//! ones and TorchScript files.
//!
//! A model knows nothing of ranks, steps, optimizers or gradients' reduction: that is the training loop's.

mod build;
mod error;
mod forms;
mod interface;
mod log;
mod lookalike;
mod memory;
mod networks;
mod parts;
mod precision;
mod script;
mod supervised;
mod trace;
mod watched;

pub use build::build_model;
pub use error::ModelError;
pub use interface::{Context, EvalSums, Model, Parameter};
pub use log::{Logged, take_logged};
pub use memory::disjoint;
pub use parts::Parts;
pub use precision::Precision;
pub use supervised::classified;
pub use trace::{same_form, without_trace};
pub use watched::Watched;
