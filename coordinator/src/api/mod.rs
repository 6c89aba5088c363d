//! The gRPC services: [`Control`] for clients, [`Agents`] for nodes.
//!
//! They decode and check messages, call the [`Handle`](crate::node::Handle), and encode its answers. An invalid message never causes a
//! panic: it is rejected with a `Status` that names the field.

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

/// Maximum size of a message in either direction, in bytes: a process message of `lockstep_rpc::frame::MAX_FRAME_BYTES`, and its envelope.
pub const MAX_MESSAGE_BYTES: usize = lockstep_rpc::frame::MAX_FRAME_BYTES + 65_536;

/// Messages of one stream that are queued for the network. Enough to keep the network busy; few, so that a slow reader slows the sender.
const STREAM_QUEUE: usize = 16;
