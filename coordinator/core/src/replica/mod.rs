//! One voter of the replicated log, without I/O. The caller passes ticks, messages and proposals in, and takes messages to send, data to
//! write and answers out.
//!
//! ```text
//! loop { input: tick | step | propose
//!        while let Some(out) = replica.take_output() {
//!            send(out.now); answer(out.replies);
//!            if let Some(p) = out.persist { store(p); send(out.after_persist); replica.persisted(p.number) } } }
//! ```
//!
//! The same type runs in production and in the simulation, because it uses no clock, disk or network.

mod config;
mod log;
mod message;
mod node;
mod output;

pub use config::{Config, RecoverError, Recovered};
pub use message::StepError;
pub use node::Replica;
pub use output::{
    HardState, Leadership, LogEntry, LogPosition, Output, PeerMessage, Persist, ProposeError, RowList, Rows, Ticket,
};
