//! Connections between programs: the only place that opens a gRPC connection or serves one, over plain HTTP/2.
//!
//! ```text
//!  client, agent ── Dialer ──▶ TCP ──▶ listen::Port ── serve ── coordinator
//! ```
//!
//! Deliberately absent: what is said.

mod dialer;
pub mod listen;
mod serve;

pub use dialer::Dialer;
pub use serve::serve;
