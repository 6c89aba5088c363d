//! The command line `coord`: parses arguments, sends requests to a coordinator, and prints answers as text or JSON.
//!
//! Each folder is a topic. [`args`] defines the arguments, and [`dispatch`] calls the function of a command. All topics use `terminal`
//! and `connection`.

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
