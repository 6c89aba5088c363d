//! The state database: raft log, hard state, applied index, state rows and archive. Each [`Persist`] is one transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_common::formats;
use lockstep_core::ClusterState;
use lockstep_core::replica::{HardState, LogEntry, LogPosition, Persist, Recovered, RowList, Rows};
use lockstep_host::durable::Place;
use lockstep_host::quiet::Quiet;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::archive::{self, ARCHIVE, Archive, LISTS};
use super::error::StoreError;
use super::sealed;
use super::{guarded, open_database};

/// First format whose values have checksums.
const FIRST_SEALED: u64 = 8;

/// The format that this version writes.
pub(super) const FORMAT: u64 = formats::STATE.written;

pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Log index → term, command.
pub(super) const ENTRIES: TableDefinition<u64, (u64, &[u8])> = TableDefinition::new("entries");
pub(super) const ROWS: TableDefinition<&str, &[u8]> = TableDefinition::new("rows");

pub(super) const FORMAT_KEY: &str = "format";
const APPLIED: &str = "applied_index";
/// Log index of the newest effect that was written to the report database.
const COUNTED: &str = "counted_index";
const TERM: &str = "hard_state.term";
const VOTE: &str = "hard_state.vote";
const COMMIT: &str = "hard_state.commit";
const TRUNCATED_INDEX: &str = "truncated.index";
const TRUNCATED_TERM: &str = "truncated.term";
/// Checksum of the numbers above.
const META_SUM: &str = "sum";

/// Keys of all numbers that the checksum covers.
const NUMBERS: [&str; 8] = [FORMAT_KEY, APPLIED, COUNTED, TERM, VOTE, COMMIT, TRUNCATED_INDEX, TRUNCATED_TERM];

/// The open state database.
#[derive(Debug)]
pub(super) struct StateDatabase {
    pub(super) path: PathBuf,
    place: Place,
    pub(super) database: Arc<Quiet<Database>>,
}

impl StateDatabase {
    /// Opens or creates `state.redb` in `dir`. Returns the database and its format; an earlier format needs
    /// [`StateDatabase::upgraded`].
    ///
    /// # Errors
    /// `Format` if this version does not read the format.
    pub(super) fn open(dir: &Path) -> Result<(Self, u64), StoreError> {
        let path = dir.join("state.redb");
        guarded(&path, || {
            let this = Self::at(&path)?;
            let Some(found) = this.format().map_err(|error| StoreError::read(&path, error))? else {
                this.stamp().map_err(|error| StoreError::write(&path, error))?;
                return Ok((this, FORMAT));
            };
            formats::STATE.check(found).map_err(|source| StoreError::Format { dir: dir.to_owned(), source })?;
            Ok((this, found))
        })
    }

    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        let database = Arc::new(open_database(path)?);
        let place = Place::of(path).map_err(|error| StoreError::open(path, error))?;
        Ok(Self { path: path.to_owned(), place, database })
    }

    fn format(&self) -> Result<Option<u64>, redb::Error> {
        match self.database.begin_read()?.open_table(META) {
            Ok(table) => Ok(table.get(FORMAT_KEY)?.map(|value| value.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates all tables, and writes the format.
    fn stamp(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_KEY, FORMAT)?;
        seal_numbers(&mut meta)?;
        drop(meta);
        transaction.open_table(ENTRIES)?;
        transaction.open_table(ROWS)?;
        transaction.open_table(ARCHIVE)?;
        transaction.open_table(LISTS)?;
        transaction.commit()?;
        Ok(())
    }

    /// A reader of the archive, which can be used while the store writes.
    pub(super) fn archive(&self) -> Archive {
        Archive::new(&self.path, &self.database)
    }

    /// Log index of the newest effect that was written to the report database; 0 if there is none, or if an older version wrote the file.
    pub(super) fn counted(&self) -> Result<u64, StoreError> {
        let read = || -> Result<u64, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            Ok(meta.get(COUNTED)?.map_or(0, |value| value.value()))
        };
        guarded(&self.path, || read().map_err(|error| StoreError::read(&self.path, error)))
    }

    /// Reads everything durable, as the start of a replica.
    pub(super) fn recover(&self) -> Result<Recovered, StoreError> {
        guarded(&self.path, || {
            let damaged = |detail: String| StoreError::Damaged { path: self.path.clone(), detail };
            let (mut recovered, rows) = self.contents(FORMAT)?;
            recovered.state = ClusterState::from_rows(rows).map_err(|error| damaged(lockstep_common::chain(&error)))?;
            Ok(recovered)
        })
    }

    /// Reads the log and the undecoded rows of a database with format `found`.
    pub(super) fn contents(&self, found: u64) -> Result<(Recovered, RowList), StoreError> {
        self.read(found >= FIRST_SEALED).map_err(|error| match error {
            Unread::Database(error) => StoreError::read(&self.path, error),
            Unread::Changed(what) => StoreError::damaged(&self.path, &format!("{what} fails its checksum")),
        })
    }

    fn read(&self, is_sealed: bool) -> Result<(Recovered, RowList), Unread> {
        let opened = |place: &[u8], data: &[u8]| {
            if is_sealed { sealed::opened(place, data).map(<[u8]>::to_vec) } else { Some(data.to_vec()) }
        };
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let number = |key: &str| Ok::<u64, Unread>(meta.get(key)?.map_or(0, |value| value.value()));
        if is_sealed && number(META_SUM)? != numbers_sum(&meta)? {
            return Err(Unread::Changed("the table `meta`".to_owned()));
        }
        let mut entries = Vec::new();
        for entry in transaction.open_table(ENTRIES)?.iter()? {
            let (index, value) = entry?;
            let (index, (term, data)) = (index.value(), value.value());
            let data = opened(&place_of(index, term), data);
            let data = data.ok_or_else(|| Unread::Changed(format!("log entry {index}")))?;
            entries.push(LogEntry { index, term, data });
        }
        let mut rows = Vec::new();
        for row in transaction.open_table(ROWS)?.iter()? {
            let (key, value) = row?;
            let key = key.value().to_owned();
            let value = opened(key.as_bytes(), value.value());
            let value = value.ok_or_else(|| Unread::Changed(format!("the row `{key}`")))?;
            rows.push((key, value));
        }
        let recovered = Recovered {
            truncated: LogPosition { index: number(TRUNCATED_INDEX)?, term: number(TRUNCATED_TERM)? },
            entries,
            hard_state: HardState { term: number(TERM)?, vote: number(VOTE)?, commit: number(COMMIT)? },
            applied_index: number(APPLIED)?,
            state: ClusterState::default(),
        };
        Ok((recovered, rows))
    }

    /// Writes `persist`. With `persist.sync`, this write and all before it are durable afterwards.
    pub(super) fn write(&self, persist: &Persist) -> Result<(), StoreError> {
        guarded(&self.path, || self.commit(persist).map_err(|error| StoreError::write(&self.path, error)))?;
        self.place.check().map_err(|error| StoreError::write(&self.path, error))
    }

    fn commit(&self, persist: &Persist) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        if !persist.sync {
            transaction.set_durability(Durability::None)?;
        }
        write_log(&transaction, persist)?;
        write_rows(&transaction, &persist.rows)?;
        archive::write(&transaction, &persist.archived)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(APPLIED, persist.applied_index)?;
        if let Some((index, _)) = persist.effects.last() {
            meta.insert(COUNTED, index)?;
        }
        seal_numbers(&mut meta)?;
        drop(meta);
        transaction.commit()?;
        Ok(())
    }
}

pub(super) fn write_log(transaction: &WriteTransaction, persist: &Persist) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let mut entries = transaction.open_table(ENTRIES)?;
    if let Rows::Replaced(_) = persist.rows {
        entries.retain(|_, _| false)?;
    }
    if let Some(LogPosition { index, term }) = persist.truncated {
        meta.insert(TRUNCATED_INDEX, index)?;
        meta.insert(TRUNCATED_TERM, term)?;
        entries.retain_in(..=index, |_, _| false)?;
    }
    if let Some(first) = persist.entries.first() {
        entries.retain_in(first.index.., |_, _| false)?;
    }
    for entry in &persist.entries {
        let data = sealed::seal(&place_of(entry.index, entry.term), &entry.data);
        entries.insert(entry.index, (entry.term, data.as_slice()))?;
    }
    if let Some(HardState { term, vote, commit }) = persist.hard_state {
        meta.insert(TERM, term)?;
        meta.insert(VOTE, vote)?;
        meta.insert(COMMIT, commit)?;
    }
    Ok(())
}

pub(super) fn write_rows(transaction: &WriteTransaction, rows: &Rows) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(ROWS)?;
    match rows {
        Rows::Changed(rows) => {
            for (key, value) in rows {
                match value {
                    Some(value) => table.insert(key.as_str(), sealed::seal(key.as_bytes(), value).as_slice())?,
                    None => table.remove(key.as_str())?,
                };
            }
        }
        Rows::Replaced(rows) => {
            table.retain(|_, _| false)?;
            for (key, value) in rows {
                table.insert(key.as_str(), sealed::seal(key.as_bytes(), value).as_slice())?;
            }
        }
    }
    Ok(())
}

/// The place of a log entry, for its checksum.
pub(super) fn place_of(index: u64, term: u64) -> [u8; 16] {
    (u128::from(index) << 64 | u128::from(term)).to_le_bytes()
}

/// The checksum of the numbers in `meta`.
fn numbers_sum(meta: &impl ReadableTable<&'static str, u64>) -> Result<u64, redb::Error> {
    let mut numbers = Vec::with_capacity(8 * NUMBERS.len());
    for key in NUMBERS {
        let number = meta.get(key)?.map_or(0, |value| value.value());
        numbers.extend_from_slice(&number.to_le_bytes());
    }
    Ok(sealed::sum(META_SUM.as_bytes(), &numbers))
}

/// Writes the checksum of the numbers in `meta`.
pub(super) fn seal_numbers(meta: &mut Table<'_, &'static str, u64>) -> Result<(), redb::Error> {
    let sum = numbers_sum(meta)?;
    meta.insert(META_SUM, sum)?;
    Ok(())
}

#[derive(Debug)]
enum Unread {
    Database(redb::Error),
    /// The named part fails its checksum.
    Changed(String),
}

impl<E: Into<redb::Error>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entry, persist};
    use super::*;

    fn indexes(recovered: &Recovered) -> Vec<(u64, u64)> {
        recovered.entries.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    #[test]
    fn the_log_is_recovered_as_written_with_replaced_tail_and_truncated_head() {
        let dir = tempfile::tempdir().unwrap();
        {
            let database = StateDatabase::open(dir.path()).unwrap().0;
            let empty = database.recover().unwrap();
            assert_eq!((empty.entries.len(), empty.applied_index, empty.hard_state), (0, 0, HardState::default()));
            database.write(&persist(1, vec![entry(1, 1), entry(2, 1), entry(3, 1)])).unwrap();
            let hard_state = Some(HardState { term: 2, vote: 1, commit: 2 });
            database
                .write(&Persist { hard_state, applied_index: 2, ..persist(2, vec![entry(3, 2), entry(4, 2)]) })
                .unwrap();
            let truncated = Some(LogPosition { index: 1, term: 1 });
            database.write(&Persist { truncated, applied_index: 2, ..persist(3, vec![]) }).unwrap();
        }
        let recovered = StateDatabase::open(dir.path()).unwrap().0.recover().unwrap();
        assert_eq!(indexes(&recovered), [(2, 1), (3, 2), (4, 2)]);
        assert_eq!(recovered.truncated, LogPosition { index: 1, term: 1 });
        assert_eq!(recovered.hard_state, HardState { term: 2, vote: 1, commit: 2 });
        assert_eq!(recovered.applied_index, 2);
    }

    #[test]
    fn a_lazy_write_is_durable_with_the_next_that_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let database = StateDatabase::open(dir.path()).unwrap().0;
        let copy_recovers = |name: &str| {
            // The file as a killed process would leave it.
            let crashed = dir.path().join(name);
            std::fs::create_dir(&crashed).unwrap();
            std::fs::copy(&path, crashed.join("state.redb")).unwrap();
            indexes(&StateDatabase::open(&crashed).unwrap().0.recover().unwrap())
        };
        database.write(&persist(1, vec![entry(1, 1)])).unwrap();
        database.write(&Persist { sync: false, ..persist(2, vec![entry(2, 1)]) }).unwrap();
        assert_eq!(copy_recovers("lazy")[0], (1, 1));
        database.write(&persist(3, vec![entry(3, 1)])).unwrap();
        assert_eq!(copy_recovers("sync"), [(1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn a_snapshot_replaces_rows_and_log() {
        let dir = tempfile::tempdir().unwrap();
        let database = StateDatabase::open(dir.path()).unwrap().0;
        let row = |key: &str| (key.to_owned(), Some(vec![1]));
        let rows = Rows::Changed(vec![row("node/a"), row("node/b")]);
        database.write(&Persist { rows, ..persist(1, vec![entry(1, 1), entry(2, 1)]) }).unwrap();
        let rows = Rows::Replaced(vec![("node/c".to_owned(), vec![2])]);
        let truncated = Some(LogPosition { index: 9, term: 3 });
        database.write(&Persist { rows, truncated, applied_index: 9, ..persist(2, vec![entry(10, 3)]) }).unwrap();
        let (recovered, rows) = database.contents(FORMAT).unwrap();
        assert_eq!(indexes(&recovered), [(10, 3)]);
        assert_eq!(rows, [("node/c".to_owned(), vec![2])]);
    }

    #[test]
    fn another_format_a_damaged_row_and_a_file_that_is_no_database_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        {
            let database = StateDatabase::open(dir.path()).unwrap().0;
            let rows = Rows::Changed(vec![("node/a".to_owned(), Some(vec![0xff]))]);
            database.write(&Persist { rows, ..persist(1, vec![]) }).unwrap();
            let error = database.recover().unwrap_err().to_string();
            assert!(error.contains("is damaged: the row `node/a` cannot be read"), "{error}");
            let change = |bytes: &[u8]| {
                let transaction = database.database.begin_write().unwrap();
                transaction.open_table(ROWS).unwrap().insert("node/a", bytes).unwrap();
                transaction.commit().unwrap();
                database.recover().unwrap_err().to_string()
            };
            assert!(change(&sealed::seal(b"node/b", &[0xff])).contains("the row `node/a` fails its checksum"));
            assert!(change(&[0xff]).contains("the row `node/a` fails its checksum"));
            let transaction = database.database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert(APPLIED, 7).unwrap();
            transaction.commit().unwrap();
            let error = database.recover().unwrap_err().to_string();
            assert!(error.contains("the table `meta` fails its checksum"), "{error}");
            let transaction = database.database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert(FORMAT_KEY, FORMAT + 1).unwrap();
            transaction.commit().unwrap();
        }
        let error = StateDatabase::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Format { source, .. } if source.found == FORMAT + 1), "{error}");
        std::fs::write(dir.path().join("state.redb"), b"this is no database, only text").unwrap();
        let error = StateDatabase::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("state.redb` is damaged") && error.contains("restore all files"), "{error}");
    }
}
