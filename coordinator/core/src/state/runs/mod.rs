//! A run: what was submitted, where it stands, its processes and its checkpoints.

mod checkpoints;
mod life;
mod process;
mod run;
mod run_state;
mod status;
mod submission;
mod text;

pub use checkpoints::{Checkpoint, FailedCheckpoint, Restore};
pub use process::{MeasuredNumerics, ProcessExit, ProcessPhase, ProcessState};
pub use run::Run;
pub(in crate::state) use run_state::RunProgress;
pub use run_state::{Measured, RunState};
pub use status::Status;
pub use submission::Submission;
pub(crate) use text::{TEXT_BYTES, bounded, shortened};
