//! Models: built-in networks, and TorchScript modules. A model has named parameters and buffers in a fixed order, a loss for training,
//! and an evaluation without side effects.
//!
//! A model knows nothing of optimizers, checkpoints or the reduction of gradients; they belong to the training loop.

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
