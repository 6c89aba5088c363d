//! The coordinator's pure half: commands, the replicated state, placement, the commit rule, desired state, views of
//! it for people, and the raft replica without I/O.
//!
//! **Architecture invariant (I1, I2):** nothing in here does I/O, reads a clock or draws randomness. State is a function
//! of the log; the simulation under `tests/simulation` drives the very code that production drives.

pub mod command;
pub mod desired;
pub mod formats;
pub mod outcome;
pub mod placement;
pub mod replica;
pub mod state;
pub mod view;

pub use command::{Applied, Command};
pub use desired::{Assignment, DesiredRun, Save};
pub use outcome::{Effect, Outcome, Refusal};
pub use state::{ClusterState, ReportBody};
