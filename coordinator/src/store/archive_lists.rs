//! Adds the list rows of archived runs to a database of an earlier version, which had none.

use lockstep_common::chain;
use lockstep_core::ClusterState;
use redb::{ReadableDatabase, ReadableTableMetadata, TableError};
use tracing::info;

use super::archive::{ARCHIVE, LISTS, write_lists};
use super::error::StoreError;
use super::guarded;
use super::log::StateDatabase;

impl StateDatabase {
    /// Writes the missing list rows of archived runs. `state` is the state in this database.
    ///
    /// # Errors
    /// As [`super::Archive::rows`]; `Write` if the rows cannot be written.
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
                StoreError::damaged(&self.path, &format!("run `{id}` in the archive: {}", chain(&error)))
            })?;
            made.push((archived.number, row));
        }
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            write_lists(&transaction, made.iter().map(|(number, row)| (*number, row.as_slice())))?;
            Ok(transaction.commit()?)
        };
        guarded(&self.path, || write().map_err(|error| StoreError::write(&self.path, error)))?;
        info!(runs = made.len(), "wrote the list rows of archived runs");
        Ok(())
    }
}
