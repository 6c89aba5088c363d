//! A run in the formats of other tools: TensorBoard, MLflow, Weights & Biases, CSV, Parquet.
//!
//! This crate owns how those tools want things named, framed, batched and cut. It does not know where a run's numbers are kept,
//! nor how a run is found: it is handed a [`Run`] and its [`Item`]s. Beside these it puts weights into a TorchScript file
//! ([`replace_weights`]), which it reads as data and never loads.

mod error;
mod mlflow;
mod run;
mod sink;
mod table;
mod tensorboard;
mod torchscript;
mod wandb;

pub use error::ExportError;
pub use mlflow::{Mlflow, MlflowServer};
pub use run::{Dataset, Item, Run, Status};
pub use sink::Sink;
pub use table::{TableFile, TableFormat};
pub use tensorboard::TensorBoard;
pub use torchscript::{TorchScriptError, Weight, replace_weights};
pub use wandb::Wandb;
