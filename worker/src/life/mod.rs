//! The process, from its command line to its exit code: as a rank process under an agent, or alone.

mod agent;
mod assignment;
pub(crate) mod command;
mod ended;
mod fault;
mod joined;
mod loaded;
pub mod local;
mod memory;
mod options;
mod rank;
pub mod scores;
mod training;

pub use agent::AgentConnection;
pub use options::Options;
pub use rank::{run, warn_if_reachable};
