//! Helpers of the end-to-end tests: a coordinator and workers as real processes, which tests query through `coord` and the page's API.

mod cluster;
mod job;

pub use cluster::{Cluster, DEADLINE, Record, wait_for};
pub use job::{Job, digits, write_images};
