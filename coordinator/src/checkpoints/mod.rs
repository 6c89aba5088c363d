//! Checkpoints in the store: their blobs are opened, their manifests written and read.
//!
//! The state names a checkpoint by its id and by the blob of its manifest, and holds neither shares nor manifests.

mod committer;
mod manifests;

pub use committer::Committer;
pub use manifests::Manifests;
pub(crate) use manifests::contradiction;
