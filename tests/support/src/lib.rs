//! Helpers for the tests of several crates: child processes, programs, git work trees, ports. Does not depend on the code under
//! test, and links no libtorch.

mod again;
mod generated;
mod http;
mod modes;
mod modules;
mod namespace;
mod output;
mod places;
mod port;
mod process;
mod run;
mod server;
mod tree;
mod wait;

pub use again::Again;
pub use generated::{cli_is_current, is_current};
pub use http::http;
pub use modes::{mode, modes};
pub use modules::modules;
pub use namespace::{in_mount_namespace, mount_small};
pub use places::{binary, cache, repository, tool, tool_packages, torch_python};
pub use port::free_port;
pub use process::{Process, Signal, signal};
pub use run::{Outcome, only_test, printed};
pub use server::Server;
pub use tree::{commit, dirty_tree, git};
pub use wait::wait_within;
