//! MLflow, by its REST interface.

mod client;
mod names;
mod sink;

pub use client::MlflowServer;
pub use sink::Mlflow;
