//! The job that `coord submit` takes. It is parsed once, into a valid [`JobSpec`].

mod error;
mod parse;
#[cfg(test)]
mod reference;
mod schema;
mod spec;

pub use error::JobError;
pub use parse::parse_toml;
pub use schema::{
    Activation, Autocast, Batch, Checkpoint, Code, Data, Eval, FeatureImportance, Job, Level, LossKind, Model,
    Numerics, Optimizer, OptimizerKind, Output, Parameter, Program, Reduction, Report, Task, TokenType, World,
};
pub use spec::JobSpec;
