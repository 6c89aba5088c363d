//! Training: one step after another, each from batches to an optimizer's step and what is recorded of it.

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
