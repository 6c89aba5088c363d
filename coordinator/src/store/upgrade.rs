//! Converts a state database of an earlier format: copies the file to `state.format-N.redb`, and rewrites all rows in one transaction.
//! After a crash the database still has the earlier format, and the next start repeats the conversion.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_common::chain;
use lockstep_common::manifest::{Manifest, Piece};
use lockstep_core::formats::{upgrade_entry, upgrade_row, upgrade_rows};
use lockstep_core::replica::{LogEntry, LogPosition, Persist, Recovered, RowList, Rows};
use lockstep_store::BlobError;
use tracing::info;

use super::error::StoreError;
use super::guarded;
use super::log::{FORMAT, FORMAT_KEY, META, StateDatabase, seal_numbers, write_log, write_rows};

/// Writes a blob into the blob store, durably.
pub type Put<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Piece, BlobError>;

/// Path of the copy of `state.redb` with format `found`.
pub(super) fn backup(path: &Path, found: u64) -> PathBuf {
    path.with_extension(format!("format-{found}.redb"))
}

impl StateDatabase {
    /// One blob of each checkpoint in a database of format `found`.
    pub(super) fn known_blobs(&self, found: u64) -> Result<Vec<Piece>, StoreError> {
        let (_, rows) = guarded(&self.path, || self.contents(found))?;
        let manifests = rows.iter().filter(|(key, _)| key.starts_with("manifest/"));
        let manifests = manifests.filter_map(|(_, bytes)| Manifest::decode(bytes).ok());
        Ok(manifests
            .filter_map(|manifest| manifest.tensors.into_iter().flat_map(|tensor| tensor.pieces).next())
            .collect())
    }

    /// Converts the database of format `found` to the current format, and keeps a copy of the file.
    ///
    /// Manifests, which are blobs in the current format, are written with `put`.
    ///
    /// # Errors
    /// `Unapplied` if this version cannot apply the last commands; `Damaged` or `Upgrade` if the contents are invalid in format `found`.
    pub(super) fn upgraded(self, found: u64, put: Put<'_>) -> Result<Self, StoreError> {
        let path = self.path.clone();
        drop(self); // Only a closed database is one complete file.
        keep_copy(&path, found).map_err(|error| StoreError::write(&path, redb::StorageError::Io(error)))?;
        let this = Self::at(&path)?;
        let (recovered, rows) = guarded(&path, || this.contents(found))?;
        let rows = this.rows_of_today(rows, found, put)?;
        let log = this.log_of_today(recovered)?;
        this.rewrite(&Persist { rows: Rows::Replaced(rows), ..log })
            .map_err(|error| StoreError::write(&path, error))?;
        info!(from = found, to = FORMAT, copy = %backup(&path, found).display(), "converted the state database to the current format");
        Ok(this)
    }

    fn rows_of_today(&self, rows: RowList, found: u64, put: Put<'_>) -> Result<RowList, StoreError> {
        let mut of_format_8 = BTreeMap::new();
        for (key, value) in rows {
            let value = if found > 6 { Ok(value) } else { upgrade_row(&key, &value) };
            let value = value.map_err(|error| StoreError::Damaged {
                path: self.path.clone(),
                detail: format!("the row `{key}` cannot be read: {}", chain(&error)),
            })?;
            of_format_8.insert(key, value);
        }
        let rows = upgrade_rows(&of_format_8, &mut |bytes| Ok(put(bytes)?));
        let rows = rows.map_err(|source| StoreError::Upgrade { path: self.path.clone(), source })?;
        Ok(rows.into_iter().collect())
    }

    /// The log after the applied index. Earlier entries are dropped, because there are no followers.
    fn log_of_today(&self, recovered: Recovered) -> Result<Persist, StoreError> {
        let Recovered { truncated, entries, applied_index, .. } = recovered;
        let applied = entries.iter().find(|entry| entry.index == applied_index);
        let truncated = applied.map_or(truncated, |entry| LogPosition { index: entry.index, term: entry.term });
        let mut left = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.index > applied_index) {
            let LogEntry { index, term, data } = entry;
            let data = upgrade_entry(&data)
                .map_err(|error| StoreError::damaged(&self.path, &format!("log entry {index}: {}", chain(&error))))?;
            let data = data.ok_or_else(|| StoreError::Unapplied { path: self.path.clone(), index })?;
            left.push(LogEntry { index, term, data });
        }
        Ok(Persist {
            number: 0,
            sync: true,
            truncated: Some(truncated),
            entries: left,
            hard_state: None,
            rows: Rows::Changed(Vec::new()),
            effects: Vec::new(),
            archived: Vec::new(),
            applied_index,
        })
    }

    fn rewrite(&self, persist: &Persist) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        write_log(&transaction, persist)?;
        write_rows(&transaction, &persist.rows)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT_KEY, FORMAT)?;
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
    // Copies the bytes without the mode, so that only the owner can read the copy.
    io::copy(&mut fs::File::open(path)?, &mut copy)?;
    copy.as_file().sync_all()?;
    copy.persist(backup(path, found)).map_err(|error| error.error)?;
    lockstep_host::durable::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::super::log::{ENTRIES, ROWS, place_of};
    use super::super::sealed;
    use super::*;

    /// Creates a directory of format `found` with a row, and a log whose last entry is `command`, which is not applied.
    fn earlier(dir: &Path, found: u64, command: &[u8]) {
        let (database, _) = StateDatabase::open(dir).unwrap();
        let transaction = database.database.begin_write().unwrap();
        {
            let sealed = |place: &[u8], value: &[u8]| {
                if found == 7 { value.to_vec() } else { sealed::seal(place, value) }
            };
            let mut entries = transaction.open_table(ENTRIES).unwrap();
            for (index, data) in [(1, &[][..]), (2, &[2, 0xc0]), (3, command)] {
                entries.insert(index, (1, sealed(&place_of(index, 1), data).as_slice())).unwrap();
            }
            let row = sealed(b"node/a", &[7]);
            transaction.open_table(ROWS).unwrap().insert("node/a", row.as_slice()).unwrap();
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert(FORMAT_KEY, found).unwrap();
            meta.insert("applied_index", 2).unwrap();
            if found > 7 {
                seal_numbers(&mut meta).unwrap();
            } else {
                meta.remove("sum").unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn upgraded(dir: &Path) -> Result<StateDatabase, StoreError> {
        let (database, found) = StateDatabase::open(dir)?;
        database.upgraded(found, &mut |_| unreachable!("the directory has no manifests"))
    }

    #[test]
    fn directories_of_formats_7_and_8_are_read_from_what_they_had_applied_on() {
        for found in [7, 8] {
            let dir = tempfile::tempdir().unwrap();
            earlier(dir.path(), found, &[]);
            let (recovered, rows) = upgraded(dir.path()).unwrap().contents(FORMAT).unwrap();
            assert_eq!(recovered.entries, [LogEntry { index: 3, term: 1, data: Vec::new() }]);
            assert_eq!((recovered.truncated, recovered.applied_index), (LogPosition { index: 2, term: 1 }, 2));
            assert_eq!(rows, [("node/a".to_owned(), vec![7])]);
            assert!(backup(&dir.path().join("state.redb"), found).exists(), "a copy is kept");
        }
    }

    #[test]
    fn what_only_the_earlier_build_can_apply_is_refused_and_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        earlier(dir.path(), 8, b"\x02\x81\xa6Commit\x80");
        let refused = upgraded(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("can apply (from log index 3): start that version once more"), "{refused}");
        let (database, found) = StateDatabase::open(dir.path()).unwrap();
        assert_eq!((found, database.contents(8).unwrap().0.entries.len()), (8, 3), "the database is unchanged");
    }
}
