//! Checkpoints: staged off the training path, written as blobs by all processes, verified before anything is loaded.
//!
//! ```text
//!  training thread   stage ─ forward, backward ─ (staged?) ─ optimizer ──>
//!  checkpoint thread     copy ────────────────────┘ hash and write ─ sync ─ CheckpointShare to the agent
//! ```
//!
//! Deliberately absent: when a checkpoint is due (the job says), and whether it exists (the coordinator commits it).

mod digest;
mod load;
mod rank_state;
mod size;
mod writer;

use std::collections::BTreeMap;

use lockstep_common::manifest::RankState;

pub use digest::state_digest;
pub use load::{LoadError, load};
pub use rank_state::Ranks;
pub use writer::{Staging, Writer};

/// One rank at a checkpoint, its generators' states not yet stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RankDraft {
    /// All but the generators.
    pub state: RankState,
    /// Raw state by device, as the next step begins.
    pub generators: BTreeMap<String, Vec<u8>>,
}

/// libtorch's name of an element type in lower case, as manifests write it.
fn dtype(tensor: &tch::Tensor) -> String {
    format!("{:?}", tensor.kind()).to_lowercase()
}
