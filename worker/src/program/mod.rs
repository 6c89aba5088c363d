//! The interface for users' own training programs.
//!
//! A program implements [`Program`]: a model and a loss in Rust, and optionally its own data and metrics. Lockstep does the rest: sampling,
//! optimizer, reduction, checkpoints, reports. The program's `main` function calls [`main`], which gives it the command line of a rank
//! process and of `train JOB`:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use lockstep_worker::program::{Batch, Context, Failure, Program, SampleShape, Setup};
//! use tch::nn::{self, ModuleT};
//! use tch::{Kind, Tensor};
//!
//! struct Trainer {
//!     layers: nn::SequentialT,
//! }
//!
//! impl Program for Trainer {
//!     fn build(root: &nn::Path<'_>, shape: &SampleShape, setup: &Setup) -> Result<Self, Failure> {
//!         let width: i64 = setup.parameter("width")?;
//!         let layers = nn::seq_t()
//!             .add(nn::linear(root / "hidden", shape.input[0], width, Default::default()))
//!             .add_fn(|x| x.relu())
//!             .add_fn_t(|x, training| x.dropout(0.1, training))
//!             .add(nn::linear(root / "head", width, 10, Default::default()));
//!         Ok(Self { layers })
//!     }
//!
//!     fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, Failure> {
//!         Ok(self.layers.forward_t(&batch.inputs, context.training).cross_entropy_for_logits(&batch.targets))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     lockstep_worker::program::main::<Trainer>()
//! }
//! ```

mod built_in;
mod interface;
mod own;
mod script_export;
mod setup;

pub use built_in::BuiltIn;
pub use interface::{Failure, Program, Source};
pub use lockstep_common::contents::Contents;
pub use lockstep_data::{Batch, DataError, DataSets, Dataset, InMemory, InputKind, SampleShape, Targets};
pub use lockstep_models::{Context, EvalSums, classified};
pub(crate) use own::Own;
pub use script_export::{ScriptExportError, export_script};
pub use setup::{OtherData, ParameterError, Setup};

pub use crate::life::command::main;
