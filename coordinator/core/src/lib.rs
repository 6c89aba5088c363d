//! Deterministic part of the coordinator: commands, the replicated state, placement, the commit rule, the desired state of nodes, views of
//! the state for clients, and the raft replica without I/O.
//!
//! **Architecture invariant (I1, I2):** this crate does no I/O, reads no clock and draws no random numbers. The state depends only on the
//! log. The simulation in `tests/simulation` runs the same code as production.

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
