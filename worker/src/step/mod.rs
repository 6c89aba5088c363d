//! The training loop. A step reads batches, computes and reduces gradients, updates the parameters, and records the result.

mod buffers;
mod due;
mod error;
mod evaluate;
mod finite;
mod hook;
mod measure;
mod numbers;
mod record;
mod run;
mod seen;
mod trainer;
mod unchanged;
mod update;

pub use error::{SetupError, TrainError};
pub use hook::StepHook;
pub use run::Finished;
use run::{Run, borrow};
pub use trainer::Trainer;
