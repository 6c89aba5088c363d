//! Access to the host: layered configuration, durable files, Git, data hashing, tracing.
//!
//! Deliberately absent: the cluster, the store, libtorch, and the network except for Git fetches.

pub mod access;
pub mod config;
pub mod data;
pub mod durable;
pub mod git;
pub mod logging;
pub mod plain;
pub mod progress;
pub mod quiet;
pub mod transient;
