//! Archived runs: two tables of the state database, written in the same transactions as the state's rows.

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

/// Run id → the rows of the run in the state, encoded with postcard.
pub(super) const ARCHIVE: TableDefinition<&str, &[u8]> = TableDefinition::new("archive");

/// Run number → the row of the run in lists, so that a page of a list reads one small value per run.
pub(super) const LISTS: TableDefinition<u64, &[u8]> = TableDefinition::new("lists");

/// Reads archived runs. It does not keep the database open.
#[derive(Clone, Debug)]
pub struct Archive {
    path: PathBuf,
    database: Weak<Quiet<Database>>,
    /// Number of values that were read so far.
    values_read: Arc<AtomicU64>,
}

impl Archive {
    pub(super) fn new(path: &Path, database: &Arc<Quiet<Database>>) -> Self {
        Self { path: path.to_owned(), database: Arc::downgrade(database), values_read: Arc::default() }
    }

    /// Number of values that were read so far: runs, and rows in lists.
    #[cfg(test)]
    pub(crate) fn values_read(&self) -> u64 {
        self.values_read.load(Ordering::Relaxed)
    }

    /// The rows that `run` had in the state when it was archived. Blocks on the disk.
    ///
    /// # Errors
    /// `Stopped` once the store is closed, `Damaged` if the run is missing or fails its checksum.
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
            StoreError::damaged(&self.path, &format!("run `{run}` in the archive is missing or corrupt"))
        })
    }

    /// The encoded list rows of the runs with these numbers, in the same order. Blocks on the disk.
    ///
    /// # Errors
    /// `Stopped` once the store is closed, `Damaged` if a row is missing or fails its checksum.
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
            let words = || format!("the list row of run number {number} in the archive is missing or corrupt");
            kept.ok_or_else(|| StoreError::damaged(&self.path, &words()))
        });
        found.collect()
    }
}

/// Writes runs that leave the state, and their list rows.
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

/// Writes list rows, each with the number of its run.
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
