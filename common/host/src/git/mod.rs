//! Git: describes the work tree of a job, stores it as bytes, and restores it.

mod between;
mod command;
mod describe;
mod error;
mod fetch;
mod kept;
mod on_disk;
mod remote;
mod repository;
mod revision;
mod status;
mod submodules;
#[cfg(test)]
mod testing;
mod tracked;

pub use between::{ChangedFile, Changes, changes};
pub use describe::{WorkTree, describe, root};
pub use error::GitError;
pub use fetch::{Remotes, fetch};
pub use kept::{KEPT_BYTES, Needed, Snapshot, Sources, built_on, needed, restore, restore_or_fetch, snapshot, source};
pub use remote::{PROTOCOLS, protocol};
pub use repository::discover_allowed as discover;
pub use revision::{commit_at, files_at};
pub use tracked::tracked;
