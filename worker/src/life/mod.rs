//! The process, from its command line to its exit code: as a rank process under an agent, or by itself.

mod agent;
pub(crate) mod command;
mod fault;
pub mod local;
mod memory;
mod rank;
pub mod scores;

pub use agent::Link;
pub use rank::{Options, run, warn_if_reachable};
