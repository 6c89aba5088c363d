//! Runs that have left the state: a table of the state database, written with the state's rows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use lockstep_common::RunId;
use lockstep_core::replica::RowList;
use lockstep_host::quiet::Quiet;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use super::error::StoreError;
use super::{guarded, sealed};

/// Run → the rows that it had.
pub(super) const ARCHIVE: TableDefinition<&str, &[u8]> = TableDefinition::new("archive");

/// Runs that ended long ago, as the state had them. It does not keep the database open.
#[derive(Clone, Debug)]
pub struct Archive {
    path: PathBuf,
    database: Weak<Quiet<Database>>,
}

impl Archive {
    /// That of the database at `path`.
    pub(super) fn new(path: &Path, database: &Arc<Quiet<Database>>) -> Self {
        Self { path: path.to_owned(), database: Arc::downgrade(database) }
    }

    /// The rows that `run` had when it left the state. Reads the disk: call it where that is allowed.
    ///
    /// # Errors
    /// `Stopped` once the store is closed, `Damaged` if the run is not there, or not as it was written.
    pub fn rows(&self, run: &RunId) -> Result<RowList, StoreError> {
        let database = self.database.upgrade().ok_or(StoreError::Stopped)?;
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = database.begin_read()?.open_table(ARCHIVE)?;
            Ok(table.get(run.as_str())?.map(|value| value.value().to_vec()))
        };
        let kept = guarded(&self.path, || read().map_err(|error| StoreError::read(&self.path, error)))?;
        let rows = kept.as_ref().and_then(|kept| sealed::opened(run.as_str().as_bytes(), kept));
        let rows = rows.and_then(|rows| postcard::from_bytes(rows).ok());
        rows.ok_or_else(|| {
            StoreError::damaged(&self.path, &format!("run `{run}` of the archive is not as it was written"))
        })
    }
}

/// Writes runs that leave the state.
pub(super) fn write(transaction: &WriteTransaction, archived: &[(RunId, RowList)]) -> Result<(), redb::Error> {
    if archived.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(ARCHIVE)?;
    for (run, rows) in archived {
        let rows = postcard::to_allocvec(rows).expect("memory does not run out");
        table.insert(run.as_str(), sealed::seal(run.as_str().as_bytes(), &rows).as_slice())?;
    }
    Ok(())
}
