//! The coordinator as a library: the task that owns the cluster's state, the database, the gRPC services and the web page. `coord serve`
//! and `--local` call it.
//!
//! `lockstep-core` defines the state and the commands that change it, and does no I/O. Deliberately absent: libtorch,
//! and any byte of gradients, samples or checkpoints (I6).

pub mod api;
pub mod checkpoints;
pub mod identity;
pub mod node;
pub mod numbers;
pub mod query;
pub mod serve;
pub mod settings;
pub mod store;
pub mod web;
