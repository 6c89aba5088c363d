//! TensorBoard's event files.

mod event;
mod hparams;
mod record;
mod sink;

pub use sink::TensorBoard;
