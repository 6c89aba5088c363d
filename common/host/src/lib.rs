//! What touches the host: layered configuration, durable files, the blob store, git, data hashing, tracing.
//!
//! Deliberately absent: anything of the cluster, of libtorch or of the network, but for what `git` fetches.

pub mod access;
pub mod blobs;
pub mod config;
pub mod data;
mod data_list;
pub mod durable;
pub mod git;
mod locate;
pub mod logging;
mod opened;
pub mod plain;
pub mod progress;
pub mod quiet;
pub mod shared;
pub mod stat_cache;
pub mod transient;
mod watch;
