//! Stores a work tree as bytes, and restores it.

mod container;
mod objects;
mod place;
mod refetched;
mod restore;
mod snapshot;
mod source;

pub use refetched::restore_or_fetch;
pub use restore::{KEPT_BYTES, Needed, Sources, built_on, needed, restore};
pub use snapshot::{Snapshot, snapshot};
pub use source::source;
