//! One voter of the replicated log, without I/O: the caller brings ticks, messages and proposals, and takes what is to
//! be sent, made durable and answered.
//!
//! ```text
//! loop { input: tick | step | propose
//!        while let Some(out) = replica.take_output() {
//!            send(out.now); answer(out.replies);
//!            if let Some(p) = out.persist { store(p); send(out.after_persist); replica.persisted(p.number) } } }
//! ```
//!
//! The same type runs in production and under the simulation: nothing in it knows a clock, a disk or a network.

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
