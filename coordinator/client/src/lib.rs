//! The command line `coord`: words in, typed requests out, answers for people or as JSON.
//!
//! A folder a topic. [`args`] are the words, [`dispatch`] gives each command to its topic; `terminal` and `connection` are what all stand on.

mod args;
mod checkpoints;
mod cluster;
mod connection;
mod dispatch;
mod evidence;
mod provenance;
mod runs;
mod terminal;
mod watch;

pub use dispatch::main;
pub use terminal::Exit;
