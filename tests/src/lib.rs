//! What the end to end tests stand on: a coordinator and workers as real processes, asked through `coord` alone.

mod cluster;
mod job;

pub use cluster::{Cluster, Record, wait_for, wait_within};
pub use job::{Job, digits};
