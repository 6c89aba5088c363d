//! Runs written for other tools, read back by those tools themselves.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod fixture;
mod mlflow;
mod mlflow_calls;
mod table;
mod tensorboard;
mod tools;
mod wandb;
