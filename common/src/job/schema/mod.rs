//! The keys of `job.toml`: their meaning, defaults and checks. One file for each section.

mod batch;
mod checkpoint;
mod code;
mod data;
mod eval;
mod job;
mod model;
mod numerics;
mod optimizer;
mod program;
mod range;
mod report;
mod schedule;
mod world;

pub use batch::{Batch, LossKind};
pub use checkpoint::Checkpoint;
pub use code::Code;
pub use data::{Data, Task, TokenType};
pub use eval::{Eval, FeatureImportance};
pub use job::Job;
pub use model::{Activation, Model, Output};
pub use numerics::{Autocast, Level, Numerics, Reduction};
pub use optimizer::{Optimizer, OptimizerKind};
pub use program::{Parameter, Program};
pub use report::Report;
pub use world::World;
