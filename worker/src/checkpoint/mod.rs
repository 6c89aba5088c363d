//! Checkpoints: copied and written beside the training, as blobs, by all processes; verified before anything is loaded.
//!
//! ```text
//!  training thread   stage ─ forward, backward ─ optimizer: (copied?) update, (copied?) update, … ──>
//!  copier                copy, and check that all is finite ─┘
//!  writer                                                  hash and write ─ sync ─ CheckpointShare to the agent
//! ```
//!
//! Not here: the job decides when a checkpoint is due, and the coordinator commits it.

mod copier;
mod digest;
mod load;
mod preprocessing;
mod rank_state;
mod saving;
mod size;
mod staging;
mod state;
mod writer;

pub use digest::state_digest;
pub use load::{LoadError, load};
pub use preprocessing::Unlike;
pub(crate) use preprocessing::{RunPreprocessing, reconcile};
pub use rank_state::{RankDraft, Ranks};
pub use saving::{Saving, Verdicts};
pub use staging::Staging;
pub use state::{ChangedBy, Named, STEPS, State};
pub use writer::Writer;
