//! The one task that owns the cluster's state, and the handle that others hold.
//!
//! ```text
//!   agents' sessions, commands --Handle--> requests --> event loop: replica.step -> store.append (await) -> apply -> replies
//!   clients, page --------------Handle--> reads ----/  |
//!                                                      +--> desired state of each attached node, change counter
//! ```

mod event_loop;
mod handle;
mod leases;
mod request;
mod session;
mod sessions;
mod start_timeouts;
mod touched;

pub use event_loop::{Node, NodeError, Policy};
pub use handle::{Changes, Handle, Report, now_ms};
pub use request::CallError;
pub use session::{Event, Pending, Session};
pub use sessions::{Desired, RunOnNode};
pub use touched::ChangesSince;
