//! The task that owns the cluster's state, and the [`Handle`] through which all other tasks reach it.
//!
//! ```text
//!   agents' sessions, commands --Handle--> requests --> event loop: replica.step -> store.append (await) -> apply -> replies
//!   clients, page --------------Handle--> reads ----/  |
//!                                                      +--> desired state of each attached node, change counter
//! ```

mod error;
mod event_loop;
mod handle;
mod leases;
mod pending;
mod request;
mod session;
mod sessions;
mod start_timeouts;
mod touched;

pub use error::CallError;
pub use event_loop::{Node, NodeError, Policy};
pub use handle::{Changes, Handle, now_ms};
pub use pending::{Pending, Report};
pub use session::{Event, Session};
pub use sessions::{Desired, RunOnNode};
pub use touched::ChangesSince;
