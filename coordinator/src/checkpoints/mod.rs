//! Checkpoints in the blob store: opens their blobs, writes and reads their manifests.
//!
//! The state has only the id of each checkpoint and the blob of its manifest, neither shares nor manifests.

mod committer;
mod manifests;

pub use committer::Committer;
pub use manifests::Manifests;
pub(crate) use manifests::contradiction;
