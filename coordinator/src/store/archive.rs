//! Runs that have left the state: two tables of the state database, written with the state's rows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use lockstep_common::RunId;
use lockstep_core::outcome::ToArchive;
use lockstep_core::replica::RowList;
use lockstep_host::quiet::Quiet;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use super::error::StoreError;
use super::{guarded, sealed};

/// Run → the rows that it had.
pub(super) const ARCHIVE: TableDefinition<&str, &[u8]> = TableDefinition::new("archive");

/// Number of the run → its row in lists: a page of a list reads what it shows, and nothing else.
pub(super) const LISTS: TableDefinition<u64, &[u8]> = TableDefinition::new("lists");

/// Runs that ended long ago, as the state had them. It does not keep the database open.
#[derive(Clone, Debug)]
pub struct Archive {
    path: PathBuf,
    database: Weak<Quiet<Database>>,
    /// Values that were read: what a question costs.
    values_read: Arc<AtomicU64>,
}

impl Archive {
    /// That of the database at `path`.
    pub(super) fn new(path: &Path, database: &Arc<Quiet<Database>>) -> Self {
        Self { path: path.to_owned(), database: Arc::downgrade(database), values_read: Arc::default() }
    }

    /// How many values were read so far, of runs and of rows in lists.
    #[cfg(test)]
    pub(crate) fn values_read(&self) -> u64 {
        self.values_read.load(Ordering::Relaxed)
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
        self.values_read.fetch_add(1, Ordering::Relaxed);
        let kept = guarded(&self.path, || read().map_err(|error| StoreError::read(&self.path, error)))?;
        let rows = kept.as_ref().and_then(|kept| sealed::opened(run.as_str().as_bytes(), kept));
        let rows = rows.and_then(|rows| postcard::from_bytes(rows).ok());
        rows.ok_or_else(|| {
            StoreError::damaged(&self.path, &format!("run `{run}` of the archive is not as it was written"))
        })
    }

    /// What lists show of the runs with these numbers, in the same order. Reads the disk: call it where that is allowed.
    ///
    /// # Errors
    /// `Stopped` once the store is closed, `Damaged` if one is not there, or not as it was written.
    pub fn for_lists(&self, numbers: &[u64]) -> Result<Vec<Vec<u8>>, StoreError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let database = self.database.upgrade().ok_or(StoreError::Stopped)?;
        let read = || -> Result<Vec<Option<Vec<u8>>>, redb::Error> {
            let table = database.begin_read()?.open_table(LISTS)?;
            let opened = |number: &u64| -> Result<Option<Vec<u8>>, redb::Error> {
                let kept = table.get(number)?;
                Ok(kept.and_then(|kept| sealed::opened(&number.to_le_bytes(), kept.value()).map(<[u8]>::to_vec)))
            };
            numbers.iter().map(opened).collect()
        };
        self.values_read.fetch_add(numbers.len() as u64, Ordering::Relaxed);
        let kept = guarded(&self.path, || read().map_err(|error| StoreError::read(&self.path, error)))?;
        let found = numbers.iter().zip(kept).map(|(number, kept)| {
            let words = || format!("run number {number} in the lists of the archive is not as it was written");
            kept.ok_or_else(|| StoreError::damaged(&self.path, &words()))
        });
        found.collect()
    }
}

/// Writes runs that leave the state.
pub(super) fn write(transaction: &WriteTransaction, archived: &[ToArchive]) -> Result<(), redb::Error> {
    if archived.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(ARCHIVE)?;
    for ToArchive { run, rows, .. } in archived {
        let rows = postcard::to_allocvec(rows).expect("memory does not run out");
        table.insert(run.as_str(), sealed::seal(run.as_str().as_bytes(), &rows).as_slice())?;
    }
    write_lists(transaction, archived.iter().map(|run| (run.number, run.for_lists.as_slice())))
}

/// Writes rows of lists, each with its run's number.
pub(super) fn write_lists<'a>(
    transaction: &WriteTransaction,
    rows: impl Iterator<Item = (u64, &'a [u8])>,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(LISTS)?;
    for (number, row) in rows {
        table.insert(number, sealed::seal(&number.to_le_bytes(), row).as_slice())?;
    }
    Ok(())
}
