//! The job: what `coord submit` takes, parsed once into a [`JobSpec`] that cannot be wrong.

mod error;
mod parse;
mod schema;
mod spec;

pub use error::JobError;
pub use parse::parse_toml;
pub use schema::{
    Activation, Autocast, Batch, Checkpoint, Code, Data, Eval, FeatureImportance, Job, Level, LossKind, Model,
    Numerics, Optimizer, OptimizerKind, Output, Parameter, Program, Reduction, Report, Task, TokenType, World,
};
pub use spec::JobSpec;
