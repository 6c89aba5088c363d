//! Ports that a single client cannot block: the number of connections and the time that each may be silent are limited.
//!
//! ```text
//!   accept ──▶ permits: full? ── yes ──▶ close the oldest silent connection; if there is none, the new one
//!                │ no
//!                ▼
//!          connection: closed if its first bytes are late, or if no data moves for long
//! ```
//!
//! This module does not know the messages. Each protocol has further deadlines of its own (HTTP/1: for a request's head; HTTP/2: for
//! pings).

mod connection;
mod limits;
mod permits;
mod port;
mod speaks;
#[cfg(test)]
mod tests;

pub use limits::{Limits, Ports, fit};
pub use permits::{block_of, one_less};
pub use port::Port;
pub use speaks::Speaks;
