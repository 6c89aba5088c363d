//! What the end to end tests stand on: a coordinator and workers as real processes, asked through `coord` alone.

mod again;
mod cluster;
mod job;
mod modules;
mod namespace;
mod port;
mod process;
mod tree;

pub use again::{Again, Outcome};
pub use cluster::{Cluster, Record, wait_for, wait_within};
pub use job::{Job, cache, digits, repository};
pub use modules::modules;
pub use namespace::{in_mount_namespace, mount_small};
pub use port::free_port;
pub use process::{Process, binary};
pub use tree::{dirty_tree, git};
