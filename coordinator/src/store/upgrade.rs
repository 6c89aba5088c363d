//! A state database of an earlier format becomes one of today's: a copy is kept beside it, and all rows are rewritten in one
//! transaction. A crash on the way leaves the earlier format, and the next start begins anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_common::{chain, formats};
use lockstep_core::formats::upgrade_row;
use redb::{ReadableDatabase, ReadableTable};
use tracing::info;

use super::error::StoreError;
use super::log::{ENTRIES, FORMAT_KEY, META, ROWS, StateDatabase, place_of, seal_numbers};
use super::sealed;

/// The copy of `state.redb` of format `found`, beside it.
pub(super) fn backup(path: &Path, found: u64) -> PathBuf {
    path.with_extension(format!("format-{found}.redb"))
}

impl StateDatabase {
    /// Rewrites a database of format `found`, of which [`backup`] has a durable copy.
    pub(super) fn upgrade(&self, found: u64) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for (key, value) in self.rows().map_err(|error| StoreError::read(&self.path, error))? {
            // Format 7 has today's rows, without checksums.
            if found > 6 {
                rows.push((key, value));
                continue;
            }
            let value = upgrade_row(&key, &value).map_err(|error| StoreError::Damaged {
                path: self.path.clone(),
                detail: format!("the row `{key}` cannot be read: {}", chain(&error)),
            })?;
            rows.push((key, value));
        }
        self.rewrite(&rows).map_err(|error| StoreError::write(&self.path, error))?;
        info!(
            from = found,
            to = formats::STATE.written,
            copy = %backup(&self.path, found).display(),
            "rewrote the state in today's format"
        );
        Ok(())
    }

    fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(ROWS)?;
        let pairs = table.iter()?.map(|row| row.map(|(key, value)| (key.value().to_owned(), value.value().to_vec())));
        Ok(pairs.collect::<Result<_, _>>()?)
    }

    fn rewrite(&self, rows: &[(String, Vec<u8>)]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for (key, value) in rows {
                table.insert(key.as_str(), sealed::seal(key.as_bytes(), value).as_slice())?;
            }
            let mut entries = transaction.open_table(ENTRIES)?;
            let all = entries
                .iter()?
                .map(|entry| entry.map(|(index, value)| (index.value(), value.value().0, value.value().1.to_vec())));
            let all: Vec<(u64, u64, Vec<u8>)> = all.collect::<Result<_, _>>()?;
            for (index, term, data) in all {
                entries.insert(index, (term, sealed::seal(&place_of(index, term), &data).as_slice()))?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT_KEY, formats::STATE.written)?;
            seal_numbers(&mut meta)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Copies the closed database at `path` to [`backup`], durably and whole.
pub(super) fn keep_copy(path: &Path, found: u64) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut copy = tempfile::Builder::new().prefix(".backup-").tempfile_in(dir)?;
    // Its bytes alone: the copy is its owner's, whatever the mode of the original.
    io::copy(&mut fs::File::open(path)?, &mut copy)?;
    copy.as_file().sync_all()?;
    copy.persist(backup(path, found)).map_err(|error| error.error)?;
    lockstep_host::durable::sync_dir(dir)
}
