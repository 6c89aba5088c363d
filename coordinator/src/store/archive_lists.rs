//! The rows of lists of a database that an earlier build has filled.

use lockstep_common::chain;
use lockstep_core::ClusterState;
use redb::{ReadableDatabase, ReadableTableMetadata, TableError};
use tracing::info;

use super::archive::{ARCHIVE, LISTS, write_lists};
use super::error::StoreError;
use super::guarded;
use super::log::StateDatabase;

impl StateDatabase {
    /// Makes what lists read of runs that a build archived which had no such table; `state` is what the database holds.
    ///
    /// # Errors
    /// As [`super::Archive::rows`], and if it cannot be written.
    pub(super) fn index_archive(&self, state: &ClusterState) -> Result<(), StoreError> {
        let lengths = || -> Result<(u64, u64), redb::Error> {
            let transaction = self.database.begin_read()?;
            let none_yet = |error| match error {
                TableError::TableDoesNotExist(_) => Ok(0),
                error => Err(redb::Error::from(error)),
            };
            let runs = transaction.open_table(ARCHIVE).map_or_else(none_yet, |table| Ok(table.len()?))?;
            let rows = transaction.open_table(LISTS).map_or_else(none_yet, |table| Ok(table.len()?))?;
            Ok((runs, rows))
        };
        let (runs, rows) = guarded(&self.path, || lengths().map_err(|error| StoreError::read(&self.path, error)))?;
        if runs == rows {
            return Ok(());
        }
        let archive = self.archive();
        let mut made = Vec::new();
        for (id, archived) in state.all_archived() {
            let row = archived.for_lists(id, archive.rows(id)?).map_err(|error| {
                StoreError::damaged(&self.path, &format!("run `{id}` of the archive: {}", chain(&error)))
            })?;
            made.push((archived.number, row));
        }
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            write_lists(&transaction, made.iter().map(|(number, row)| (*number, row.as_slice())))?;
            Ok(transaction.commit()?)
        };
        guarded(&self.path, || write().map_err(|error| StoreError::write(&self.path, error)))?;
        info!(runs = made.len(), "made the lists of the archive");
        Ok(())
    }
}
