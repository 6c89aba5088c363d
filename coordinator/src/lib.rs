//! The coordinator, a library: one task that owns the cluster's state, its store, the gRPC services, the page. `coord serve` and
//! `--local` call it.
//!
//! What the state is and how commands change it is in `lockstep-core`, which does no I/O. Deliberately absent: libtorch,
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
