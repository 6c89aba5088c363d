//! The metrics of runs: stored as they arrive, and checked for faults, which raise alarms and run the configured hooks.

pub mod hooks;
pub(crate) mod mismatch;
pub(crate) mod saves;
pub(crate) mod tracker;
