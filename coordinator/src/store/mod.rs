//! The coordinator's databases: raft log, hard state, applied index, state rows and archive in `state.redb`, report blocks in
//! `reports.redb`. One thread writes; the event loop awaits each write.

mod archive;
mod archive_lists;
mod blocks;
mod error;
mod log;
mod news;
mod sealed;
#[cfg(test)]
pub(crate) mod testing;
mod upgrade;
mod writer;

pub use archive::Archive;
pub use blocks::{BlockReader, Entry, Page};
pub use error::StoreError;

pub use news::News;
pub use upgrade::Put;
pub use writer::{DataDir, Store};

use std::path::Path;

use lockstep_common::chain;
use lockstep_host::access::make_private_file;
use lockstep_host::durable;
use lockstep_host::quiet::{Quiet, quietly_or};
use redb::Database;
use tracing::debug;

/// Page cache of each database, in bytes. Small, because the state is in memory, too.
const CACHE_BYTES: usize = 16 << 20;

/// Opens the database at `path`, or creates it atomically.
fn open_database(path: &Path) -> Result<Quiet<Database>, StoreError> {
    let create = |path: &Path| {
        make_private_file(path)?;
        Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(redb::Error::from)
    };
    guarded(path, || {
        let opened = durable::make_whole(path, |new| create(new).map(drop)).and_then(|()| create(path));
        opened.map(Quiet::new).map_err(|error| StoreError::open(path, error))
    })
}

/// Runs `read` on the database at `path`. A panic of redb, which damaged pages cause, becomes `Damaged`.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let damaged = |path: &Path| StoreError::damaged(path, "its pages are corrupt");
    let own = path.to_owned();
    quietly_or(move || chain(&damaged(&own)), read).unwrap_or_else(|panic| {
        debug!(panic, path = %path.display(), "reading a database panicked");
        Err(damaged(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_panics_is_an_error() {
        let damaged: Result<(), StoreError> = guarded(Path::new("state.redb"), || panic!("of this test: a page"));
        assert!(matches!(damaged, Err(StoreError::Damaged { .. })));
    }
}
