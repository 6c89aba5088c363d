//! What the end to end tests stand on: a coordinator and workers as real processes, asked through `coord` alone.

mod cluster;
mod job;

pub use cluster::{Cluster, DEADLINE, Record, wait_for};
pub use job::{Job, digits, write_images};
