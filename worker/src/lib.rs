//! The rank process of Lockstep: the training loop, its exchange and reduction, its checkpoints, its reports; and
//! [`program`], by which users bring programs of their own.
//!
//! ```text
//!  rank ── link ── agent            state ── checkpoint ── blob store
//!    └── train ── reduction ── exchange ── other processes
//!          └── evaluation, report ── outbox ── link
//! ```
//!
//! The agent is a crate of its own without libtorch; [`local`] runs the same loop without any agent.

mod buffers;
pub mod checkpoint;
mod evaluation;
pub mod exchange;
pub mod fault;
pub mod fingerprint;
mod importance;
mod inspect;
mod libraries;
pub mod link;
pub mod local;
mod media;
mod memory;
pub mod numerics;
pub mod operators;
mod origin;
pub mod outbox;
pub mod preprocessing;
pub mod program;
pub mod rank;
pub mod reduction;
mod report;
pub mod saving;
pub mod scores;
pub mod script_export;
pub mod state;
mod trail;
pub mod train;
mod usage;
