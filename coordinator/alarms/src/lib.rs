//! What is wrong with a run, found in its numbers as they come: a function of them, without clock, chance or I/O.
//!
//! A [`Watch`] takes points and histograms and keeps of them a bounded history ([`history`], at most about a kilobyte a
//! series). Detectors ([`detectors`], one file a rule) look at that history whenever a block of it is full, never at each
//! point, and hold no state of their own beyond it: that is what makes a rollback of the run ([`Watch::rewind`]) a cut of
//! histories and alarms. What they find is written on the board, from where [`Watch::alarms`] tells it.
//!
//! A rule that cries on a healthy run is not read when it matters. So each rule asks for persistence, compares with the
//! series' own noise, and states what healthy shape it could be taken in by; `tests/runs/healthy.rs` holds them to it.

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
