//! The job: what `coord submit` takes, parsed once into a [`JobSpec`] that cannot be wrong.

mod error;
mod numerics;
mod parse;
mod program;
mod schema;
mod validate;

pub use error::JobError;
pub use numerics::{Autocast, Level, Numerics, Reduction};
pub use parse::parse_toml;
pub use program::{Parameter, Program};
pub use schema::{
    Activation, Batch, Checkpoint, Code, Data, Eval, FeatureImportance, Job, LossKind, Model, Optimizer, OptimizerKind,
    Output, Report, Task, TokenType, World,
};
pub use validate::JobSpec;
