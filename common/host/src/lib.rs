//! What touches the host: layered configuration, durable files, git, data hashing, tracing.
//!
//! Deliberately absent: anything of the cluster, of the store, of libtorch or of the network, but for what `git` fetches.

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
