//! The agent of a node: `worker --join <addr>`.
//!
//! ```text
//!  coordinator <--one gRPC stream--> session --+                     +--> child (spawn, wait, stop, output) ── rank process
//!                                              +-- Event --> agent --+                                          |
//!                             socket <---------+                     +--> spool (reports, on disk)              |
//!                                ^                                                                              |
//!                                +----------------------- Unix socket, framed messages -------------------------+
//! ```
//!
//! One task owns all state ([`run`]) and takes events of one closed enum. It is level-triggered: the coordinator names all
//! processes that should run, and the agent starts and stops processes to match.
//!
//! **Architecture invariant (I7):** a rank process never waits for the coordinator. Its reports are numbered and written
//! to the spool, and stay there until the coordinator has acknowledged them.
//!
//! **Architecture invariant:** the agent links no libtorch and reads no gradients, samples or checkpoints.

mod agent;
mod child;
pub mod environment;
mod error;
mod event;
mod machine;
mod options;
mod process;
mod programs;
mod session;
mod socket;
mod spool;
mod store;
mod supervisor;

pub use agent::run;
pub use error::AgentError;
pub use options::{AgentOptions, Config, DEFAULTS, DeviceChoice, DeviceShare, OptionsError, RankCommand};
