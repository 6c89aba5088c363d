//! Detects faults of a run in its numbers, as they arrive. The alarms are a function of these numbers: no clock, no randomness,
//! no I/O.
//!
//! A [`Watch`] takes points and histograms and keeps a bounded [`history`] of them, at most about a kilobyte per series. The
//! [`detectors`], one rule per file, examine the history whenever a block is complete, not at every point. They have no state
//! beyond it, so that a rollback of the run ([`Watch::rewind`]) only truncates histories and alarms. They write their findings
//! to the [`board`], from which [`Watch::alarms`] returns them.
//!
//! Nobody reads alarms that come on healthy runs. So each rule demands persistence, compares with the noise of the series, and
//! documents the healthy shape that resembles its fault. `tests/runs/healthy.rs` checks that healthy runs raise no alarm.

mod advice;
mod alarm;
mod board;
mod culprit;
mod detectors;
mod growth;
mod history;
mod robust;
mod seen;
mod slot;
mod watch;

pub use advice::Facts;
pub use alarm::{Alarm, Kind, Severity};
pub use watch::Watch;
