//! What a person sees and says: output, failures in words, exit codes, bars, interrupts.

pub(crate) mod error;
pub(crate) mod exit;
pub(crate) mod interrupt;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod time;
