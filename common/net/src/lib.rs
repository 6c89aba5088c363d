//! Connections between programs. Only this crate opens or serves gRPC connections, over plain HTTP/2.
//!
//! ```text
//!  client, agent ── Dialer ──▶ TCP ──▶ listen::Port ── serve ── coordinator
//! ```
//!
//! Deliberately absent: the messages.

mod dialer;
pub mod listen;
mod serve;

pub use dialer::Dialer;
pub use serve::serve;
