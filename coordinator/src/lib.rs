//! The coordinator: one task that owns the cluster's state, its store, the gRPC services, and the command line `coord`.
//!
//! What the state is and how commands change it is in `lockstep-core`, which does no I/O. Deliberately absent: libtorch,
//! and any byte of gradients, samples or checkpoints (I6).

mod answers;
pub mod api;
pub mod documents;
pub mod hooks;
pub mod identity;
pub mod limits;
mod listen;
pub mod mismatch;
pub mod node;
pub mod reports;
pub mod saves;
pub mod serve;
pub mod settings;
pub mod start_history;
pub mod store;
pub mod tracked;
mod tracker;
pub mod web;
