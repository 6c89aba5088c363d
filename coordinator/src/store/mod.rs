//! What the coordinator keeps on disk: raft log, hard state, applied index and state rows in one database (`state.redb`),
//! report blocks in another (`reports.redb`). One thread writes; the event loop awaits it.

mod blocks;
mod error;
mod log;
mod news;
#[cfg(test)]
mod testing;
mod upgrade;
mod writer;

pub use blocks::{BlockReader, Entry, Page, StoredBlock};
pub use error::StoreError;
pub use news::News;
pub use writer::Store;

/// Memory for pages of each database.
const CACHE_BYTES: usize = 64 << 20;
