//! The commands of the replicated log. Each is a struct with its own `apply`; `outcome.rs` has their results.
//!
//! Times, secrets and request ids are fields, filled in by the leader or the client (I2).

mod annotate;
mod apply;
mod archive;
mod cancel;
mod commit;
mod dispatch;
mod fence;
mod nodes;
mod once;
mod replay;
mod report;
mod resume;
mod retries;
mod submit;

pub use annotate::{Annotate, check_annotation};
pub use archive::ArchiveRuns;
pub use cancel::Cancel;
pub use commit::{Commit, CommitFailed};
pub use dispatch::Command;
pub use fence::FenceDevices;
pub use nodes::{NodeDetached, NodeForgotten, NodeJoined, NodeLeaving, NodeLost};
pub use once::Applied;
pub use replay::{Original, ReplayRun};
pub use report::{Messenger, Report};
pub use resume::{MadeOf, Resume};
pub use retries::{Configure, RetryDue, WaitTimedOut};
pub use submit::Submit;
