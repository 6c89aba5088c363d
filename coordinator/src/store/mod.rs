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

use std::path::Path;

use lockstep_host::durable;
use redb::Database;

/// Memory for pages of each database.
const CACHE_BYTES: usize = 64 << 20;

/// Opens the database at `path`, or makes it: whole or not at all.
fn open_database(path: &Path) -> Result<Database, StoreError> {
    let create = |path: &Path| Database::builder().set_cache_size(CACHE_BYTES).create(path);
    let opened = durable::make_whole(path, |new| create(new).map(drop).map_err(redb::Error::from))
        .and_then(|()| create(path).map_err(redb::Error::from));
    opened.map_err(|error| StoreError::open(path, error))
}
