//! The commands of the replicated log. What comes back is in `outcome.rs`.
//!
//! Time, randomness and identity enter as fields that the leader or the client filled in (I2).

mod dispatch;
mod nodes;
mod replay;
mod report;
mod report_body;
mod retries;

pub use dispatch::Command;
pub use nodes::Device;
pub use replay::Replay;
pub use report::Messenger;
pub use report_body::{Progress, Said};
pub use retries::Retries;
