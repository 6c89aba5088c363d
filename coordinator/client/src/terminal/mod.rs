//! Output, failures, exit codes, progress bars, interrupts and times.

mod error;
mod exit;
mod interrupt;
mod output;
mod progress;
mod time;

pub(crate) use error::Failure;
pub use exit::Exit;
pub(crate) use interrupt::interrupted;
pub(crate) use output::{Output, table, unwritten};
pub(crate) use progress::Progress;
pub(crate) use time::{ago, clock, lasted};
