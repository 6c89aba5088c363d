//! Data files on this machine: listing, opening, hashing, and a cache of digests.

mod error;
mod hash;
mod list;
mod opened;
mod read;
mod stat_cache;

pub use error::{DataHashError, Mismatch};
pub use hash::{hash_files, verify};
pub use list::{Listed, list, list_below, no_link_out};
pub use opened::{Hashed, IN_MEMORY_BYTES, Opened, open};
pub use read::hash_read;
pub use stat_cache::{Stamp, StatCache};
