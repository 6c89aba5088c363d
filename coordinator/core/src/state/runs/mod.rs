//! Runs: submission, state, processes and checkpoints.

mod archived;
mod checkpoint;
mod corruption;
mod life;
mod owed;
mod process;
mod run;
mod run_state;
mod saves;
mod status;
mod submission;
mod text;
mod unconfirmed;

pub use archived::ArchivedRun;
pub use checkpoint::{Checkpoint, FailedCheckpoint, Restore};
pub use corruption::{Claim, Corruption, Grounds, Verdict};
pub use owed::Owed;
pub use process::{MeasuredNumerics, ProcessExit, ProcessPhase, ProcessState};
pub use run::Run;
pub(in crate::state) use run_state::RunProgress;
pub use run_state::{Measured, RunState};
pub use status::{Status, StatusKind};
pub use submission::{Replay, Submission};
pub(crate) use text::{TEXT_BYTES, bounded, shortened};
pub use unconfirmed::Unconfirmed;
