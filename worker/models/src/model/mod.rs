//! Models: named parameters and buffers in a fixed order, a loss to train on and an evaluation that leaves no trace.

mod build;
mod error;
mod forms;
mod gpt;
mod interface;
mod layers;
mod log;
mod lookalike;
mod memory;
mod mlp;
mod parts;
mod precision;
mod resnet;
mod script;
mod supervised;
mod trace;
mod watched;

pub use build::build_model;
pub use error::ModelError;
pub use interface::{Context, EvalSums, Model, Parameter};
pub use log::{Said, take_said};
pub use memory::disjoint;
pub use parts::Parts;
pub use precision::Precision;
pub use supervised::classified;
pub use trace::{same_form, without_trace};
pub use watched::Watched;
