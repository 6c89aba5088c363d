//! Ports that one client cannot take from the others: how many connections there are, and how long each may say nothing.
//!
//! ```text
//!   accept ──▶ permits: full? ── yes ──▶ the oldest silent connection is closed; if there is none, the new one
//!                │ no
//!                ▼
//!          connection: closed if its first words are late, or if no byte moves for long
//! ```
//!
//! What is said on a connection is not known here; each protocol has further deadlines of its own (HTTP/1: of a request's head;
//! HTTP/2: pings).

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
