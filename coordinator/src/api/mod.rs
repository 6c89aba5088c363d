//! The gRPC services: [`Control`] for clients, [`Agents`] for nodes.
//!
//! Thin: they turn bytes into typed requests of the [`Handle`](crate::node::Handle) and answers into bytes. What comes
//! from the network never panics; it is refused with a `Status` in words.

mod agents;
pub(crate) mod blobs;
mod control;
mod conversation;
mod convert;
mod followers;
pub(crate) mod logs;
mod reports;
pub(crate) mod reserve;
pub(crate) mod status;
mod submission;
mod terms;
mod transfers;

pub use agents::Agents;
pub use blobs::CHUNK_BYTES;
pub use control::Control;
pub use terms::Terms;

/// Longest message in either direction; a process message of `lockstep_rpc::frame::MAX_FRAME_BYTES` and what names it.
pub const MAX_MESSAGE_BYTES: usize = lockstep_rpc::frame::MAX_FRAME_BYTES + 65_536;

/// Messages of one stream that wait for the network: enough to keep it busy, little enough that a slow reader is felt.
const STREAM_QUEUE: usize = 16;
