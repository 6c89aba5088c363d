//! The report database: blocks and rewinds of each run, by the index of the log entry that brought them.
//!
//! ```text
//!   index   10        14        17          21        30
//!           block     block     rewind 20   block     block
//!           steps     steps                 steps     steps
//!           1..=20    21..=40               21..=40   41..=60
//!                     cut at 20
//! ```
//!
//! Nothing is deleted when a run is rolled back: a block is read without the steps above the smallest rewind that came
//! after it. Writing the same entry twice changes nothing, so replaying the log after a crash is harmless.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_common::{RunId, formats};
use lockstep_core::command::Effect;
use lockstep_host::durable::Place;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::error::StoreError;
use super::open_database;

const BLOCKS: TableDefinition<(&str, u64), (u32, &[u8])> = TableDefinition::new("blocks");
const REWINDS: TableDefinition<(&str, u64), u64> = TableDefinition::new("rewinds");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The log index of the newest effect in it.
const NEWEST: &str = "newest_index";

/// Bytes of blocks read at a time: bounds memory, and fits a message.
const PAGE_BYTES: usize = 4 << 20;

/// A block as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// Index of the log entry that brought it.
    pub index: u64,
    /// The process that said it.
    pub process: u32,
    /// Steps above this one were rolled back.
    pub cut: Option<u64>,
    /// The encoded `ReportBlock`.
    pub bytes: Vec<u8>,
}

/// Some of a run's blocks, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The blocks.
    pub blocks: Vec<StoredBlock>,
    /// Whether more are stored after these.
    pub more: bool,
}

/// What happened to a run's reports, in the log's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A block came: the process that said it, and the encoded `ReportBlock`.
    Block(u32, Vec<u8>),
    /// The run went back to this step.
    Rewind(u64),
}

/// The open report database; only the store's thread writes.
#[derive(Debug)]
pub(super) struct BlockDatabase {
    path: PathBuf,
    place: Place,
    database: Arc<Database>,
    /// Whether something was written that is not durable yet.
    lazy: bool,
}

impl BlockDatabase {
    /// Opens or makes it. `log`: the log indices of the newest effect that the state has counted, and of the last entry: effects
    /// are written after the entries that bring them.
    ///
    /// # Errors
    /// `Damaged` if its own newest effect lies outside of these.
    pub(super) fn open(dir: &Path, log: RangeInclusive<u64>) -> Result<Self, StoreError> {
        let path = dir.join("reports.redb");
        let database = open_database(&path)?;
        let place = Place::of(&path).map_err(|error| StoreError::open(&path, error))?;
        let stamp = || -> Result<(u64, u64), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(BLOCKS)?;
            transaction.open_table(REWINDS)?;
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format")?.map(|value| value.value());
            meta.insert("format", found.unwrap_or(formats::REPORTS.written))?;
            let newest = meta.get(NEWEST)?.map_or(0, |value| value.value());
            drop(meta);
            transaction.commit()?;
            Ok((found.unwrap_or(formats::REPORTS.written), newest))
        };
        let (found, newest) = stamp().map_err(|error| StoreError::write(&path, error))?;
        formats::REPORTS.check(found).map_err(|source| StoreError::Format { dir: dir.to_owned(), source })?;
        let (counted, last) = log.into_inner();
        let detail = if newest < counted {
            format!(
                "it is older than `state.redb` beside it, which has counted the reports up to log index {counted}, and this \
                 one ends at {newest}; put files of one time there"
            )
        } else if newest > last {
            format!(
                "it is newer than `state.redb` beside it, whose log ends at index {last}, and this one has reports up to \
                 {newest}; put files of one time there"
            )
        } else {
            return Ok(Self { path, place, database: Arc::new(database), lazy: false });
        };
        Err(StoreError::Damaged { path, detail })
    }

    pub(super) fn reader(&self) -> BlockReader {
        BlockReader { path: self.path.clone(), database: Arc::clone(&self.database) }
    }

    /// Writes `effects`; with `sync`, everything written so far is durable afterwards.
    pub(super) fn write(&mut self, effects: &[(u64, Effect)], sync: bool) -> Result<(), StoreError> {
        if effects.is_empty() && !(sync && self.lazy) {
            return Ok(());
        }
        self.commit(effects, sync).map_err(|error| StoreError::write(&self.path, error))?;
        self.place.check().map_err(|error| StoreError::write(&self.path, error))?;
        self.lazy = !sync;
        Ok(())
    }

    fn commit(&self, effects: &[(u64, Effect)], sync: bool) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        if !sync {
            transaction.set_durability(Durability::None)?;
        }
        {
            let mut blocks = transaction.open_table(BLOCKS)?;
            let mut rewinds = transaction.open_table(REWINDS)?;
            for (index, effect) in effects {
                match effect {
                    Effect::AppendBlock { run, process, bytes } => {
                        blocks.insert((run.as_str(), *index), (*process, bytes.as_slice()))?;
                    }
                    Effect::Rewind { run, step } => {
                        rewinds.insert((run.as_str(), *index), step)?;
                    }
                }
            }
            if let Some((index, _)) = effects.last() {
                transaction.open_table(META)?.insert(NEWEST, index)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Reads blocks, beside the writer.
#[derive(Clone, Debug)]
pub struct BlockReader {
    path: PathBuf,
    database: Arc<Database>,
}

impl BlockReader {
    /// Blocks of `run` whose index is above `after`: as many as fit a page. Blocks on the disk: call it where that is
    /// allowed.
    pub fn page(&self, run: &RunId, after: u64) -> Result<Page, StoreError> {
        self.read(run.as_str(), after).map_err(|error| StoreError::read(&self.path, error))
    }

    /// Blocks and rewinds of `run` whose index is above `after`, as they came: as many as fit a page, and whether there are
    /// more.
    pub fn entries(&self, run: &RunId, after: u64) -> Result<(Vec<(u64, Entry)>, bool), StoreError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let range = || (run.as_str(), after.saturating_add(1))..=(run.as_str(), u64::MAX);
            let mut entries = Vec::new();
            let (mut size, mut last) = (0, None);
            for block in transaction.open_table(BLOCKS)?.range(range())? {
                let (key, value) = block?;
                if size >= PAGE_BYTES {
                    last = entries.last().map(|(index, _)| *index);
                    break;
                }
                let (process, bytes) = value.value();
                size += bytes.len();
                entries.push((key.value().1, Entry::Block(process, bytes.to_vec())));
            }
            for rewind in transaction.open_table(REWINDS)?.range(range())? {
                let (key, step) = rewind?;
                // Those behind the page come with the next one.
                if last.is_none_or(|last| key.value().1 <= last) {
                    entries.push((key.value().1, Entry::Rewind(step.value())));
                }
            }
            entries.sort_by_key(|(index, _)| *index);
            Ok((entries, last.is_some()))
        };
        read().map_err(|error| StoreError::read(&self.path, error))
    }

    /// All runs that have reported.
    pub fn runs(&self) -> Result<Vec<RunId>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(BLOCKS)?;
            let mut runs: Vec<String> = Vec::new();
            // From each run straight to the next.
            let mut begin = String::new();
            while let Some(block) = table.range((begin.as_str(), 0)..)?.next() {
                let run = block?.0.value().0.to_owned();
                begin = format!("{run}\0");
                runs.push(run);
            }
            Ok(runs)
        };
        let runs = read().map_err(|error| StoreError::read(&self.path, error))?;
        Ok(runs.iter().filter_map(|run| run.parse().ok()).collect())
    }

    fn read(&self, run: &str, after: u64) -> Result<Page, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut rewinds = BTreeMap::new();
        for rewind in transaction.open_table(REWINDS)?.range((run, after)..=(run, u64::MAX))? {
            let (key, step) = rewind?;
            rewinds.insert(key.value().1, step.value());
        }
        let mut page = Page::default();
        let mut size = 0;
        for block in transaction.open_table(BLOCKS)?.range((run, after.saturating_add(1))..=(run, u64::MAX))? {
            let (key, value) = block?;
            if size >= PAGE_BYTES {
                page.more = true;
                break;
            }
            let (index, (process, bytes)) = (key.value().1, value.value());
            size += bytes.len();
            let cut = rewinds.range(index..).map(|(_, step)| *step).min();
            page.blocks.push(StoredBlock { index, process, cut, bytes: bytes.to_vec() });
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> RunId {
        text.parse().unwrap()
    }

    fn block(name: &str, byte: u8) -> Effect {
        Effect::AppendBlock { run: run(name), process: 0, bytes: vec![byte] }
    }

    #[test]
    fn a_block_is_cut_by_the_smallest_rewind_that_came_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = ("aaaaaaaaaa", "bbbbbbbbbb");
        let effects = [
            (10, block(a, 1)),
            (12, block(b, 9)),
            (14, block(a, 2)),
            (17, Effect::Rewind { run: run(a), step: 20 }),
            (21, block(a, 3)),
            (25, Effect::Rewind { run: run(a), step: 30 }),
            (30, block(a, 4)),
        ];
        {
            let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
            database.write(&effects, true).unwrap();
            // A crash before the state database was written replays entries.
            database.write(&effects[4..], false).unwrap();
            database.write(&[], true).unwrap();
        }
        let reader = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap().reader();
        let cuts = |after| {
            let page = reader.page(&run(a), after).unwrap();
            page.blocks.into_iter().map(|block| (block.index, block.bytes[0], block.cut)).collect::<Vec<_>>()
        };
        assert_eq!(cuts(0), [(10, 1, Some(20)), (14, 2, Some(20)), (21, 3, Some(30)), (30, 4, None)]);
        assert_eq!(cuts(14), [(21, 3, Some(30)), (30, 4, None)]);
        assert_eq!(reader.page(&run(b), 0).unwrap().blocks[0].cut, None, "another run's rewinds are not its own");
        assert_eq!(reader.runs().unwrap(), [run(a), run(b)]);
        let (entries, more) = reader.entries(&run(a), 14).unwrap();
        assert!(!more);
        let block = |byte| Entry::Block(0, vec![byte]);
        let expected = [(17, Entry::Rewind(20)), (21, block(3)), (25, Entry::Rewind(30)), (30, block(4))];
        assert_eq!(entries, expected);
    }

    #[test]
    fn pages_are_bounded_and_follow_each_other_without_loss() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
        let name = "aaaaaaaaaa";
        let effects: Vec<_> = (1..=5)
            .map(|index| {
                (index, Effect::AppendBlock { run: run(name), process: 1, bytes: vec![index as u8; PAGE_BYTES / 2] })
            })
            .collect();
        database.write(&effects, true).unwrap();
        let (mut seen, mut after, mut pages) = (Vec::new(), 0, 0);
        loop {
            let page = database.reader().page(&run(name), after).unwrap();
            assert!(page.blocks.iter().map(|block| block.bytes.len()).sum::<usize>() <= PAGE_BYTES * 3 / 2);
            seen.extend(page.blocks.iter().map(|block| block.index));
            after = seen.last().copied().unwrap();
            pages += 1;
            if !page.more {
                break;
            }
        }
        assert_eq!((seen, pages), (vec![1, 2, 3, 4, 5], 3));

        database.write(&[(6, Effect::Rewind { run: run(name), step: 0 })], true).unwrap();
        let (mut seen, mut after, mut more) = (Vec::new(), 0, true);
        while more {
            let entries;
            (entries, more) = database.reader().entries(&run(name), after).unwrap();
            seen.extend(entries.iter().map(|(index, _)| *index));
            after = seen.last().copied().unwrap();
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6], "a rewind comes in its turn");
    }
}
