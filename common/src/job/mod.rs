//! The job: what `coord submit` takes, parsed once into a [`JobSpec`] that cannot be wrong.

mod error;
mod parse;
mod program;
mod schema;
mod validate;

pub use error::JobError;
pub use parse::parse_toml;
pub use program::{Parameter, Program};
pub use schema::{
    Activation, Autocast, Batch, Checkpoint, Code, Data, Eval, FeatureImportance, Job, Level, LossKind, Model,
    Numerics, Optimizer, OptimizerKind, Output, Reduction, Report, Task, TokenType, World,
};
pub use validate::JobSpec;
