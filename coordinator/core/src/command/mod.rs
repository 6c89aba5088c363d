//! The commands of the replicated log: each is a struct with its own `apply`. What comes back is in `outcome.rs`.
//!
//! Time, randomness and identity enter as fields that the leader or the client filled in (I2).

mod annotate;
mod archive;
mod cancel;
mod commit;
mod dispatch;
mod fence;
mod nodes;
mod replay;
mod report;
mod report_body;
mod resume;
mod retries;
mod submit;

pub use annotate::{Annotate, check_annotation};
pub use archive::ArchiveRuns;
pub use cancel::Cancel;
pub use commit::{Commit, CommitFailed};
pub use dispatch::Command;
pub(crate) use dispatch::Request;
pub use fence::FenceDevices;
pub use nodes::{Device, NodeDetached, NodeForgotten, NodeJoined, NodeLeaving, NodeLost};
pub use replay::{Original, Replay, ReplayRun};
pub use report::{Messenger, Report};
pub use report_body::{Progress, ReportBody};
pub use resume::{MadeOf, Resume};
pub use retries::{Configure, Retries, RetryDue, WaitTimedOut};
pub use submit::Submit;
