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
use lockstep_core::outcome::Effect;
use lockstep_host::durable::Place;
use lockstep_host::quiet::Quiet;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::error::StoreError;
use super::sealed;
use super::{guarded, open_database};

const BLOCKS: TableDefinition<(&str, u64), (u32, &[u8])> = TableDefinition::new("blocks");
const REWINDS: TableDefinition<(&str, u64), u64> = TableDefinition::new("rewinds");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Checksums of the values above: of blocks, then of rewinds, by the same key.
const SUMS: TableDefinition<(&str, u64, u8), u64> = TableDefinition::new("sums");
const OF_BLOCK: u8 = 0;
const OF_REWIND: u8 = 1;
/// The log index of the newest effect in it.
const NEWEST: &str = "newest_index";
/// The first log index whose effects have checksums: programs before kept none.
const SUMS_FROM: &str = "sums_from_index";

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
    database: Arc<Quiet<Database>>,
    sums_from: u64,
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
        let stamp = || -> Result<(u64, u64, u64), redb::Error> {
            let transaction = database.begin_write()?;
            let kept = kept_before(&transaction)?;
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format")?.map(|value| value.value());
            meta.insert("format", found.unwrap_or(formats::REPORTS.written))?;
            let newest = meta.get(NEWEST)?.map_or(0, |value| value.value());
            let known = meta.get(SUMS_FROM)?.map(|value| value.value());
            let sums_from = known.unwrap_or(kept + 1);
            meta.insert(SUMS_FROM, sums_from)?;
            drop(meta);
            transaction.open_table(SUMS)?;
            transaction.commit()?;
            Ok((found.unwrap_or(formats::REPORTS.written), newest, sums_from))
        };
        let stamped = guarded(&path, || stamp().map_err(|error| StoreError::write(&path, error)));
        let (found, newest, sums_from) = stamped?;
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
            return Ok(Self { path, place, database: Arc::new(database), sums_from, lazy: false });
        };
        Err(StoreError::Damaged { path, detail })
    }

    pub(super) fn reader(&self) -> BlockReader {
        BlockReader { path: self.path.clone(), database: Arc::clone(&self.database), sums_from: self.sums_from }
    }

    /// Writes `effects`; with `sync`, everything written so far is durable afterwards.
    pub(super) fn write(&mut self, effects: &[(u64, Effect)], sync: bool) -> Result<(), StoreError> {
        if effects.is_empty() && !(sync && self.lazy) {
            return Ok(());
        }
        guarded(&self.path, || self.commit(effects, sync).map_err(|error| StoreError::write(&self.path, error)))?;
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
            let mut sums = transaction.open_table(SUMS)?;
            for (index, effect) in effects {
                match effect {
                    Effect::AppendBlock { run, process, bytes } => {
                        blocks.insert((run.as_str(), *index), (*process, bytes.as_slice()))?;
                        let sum = sum_of_block(run.as_str(), *index, *process, bytes);
                        sums.insert((run.as_str(), *index, OF_BLOCK), sum)?;
                    }
                    Effect::Rewind { run, step } => {
                        rewinds.insert((run.as_str(), *index), step)?;
                        let sum = sum_of_rewind(run.as_str(), *index, *step);
                        sums.insert((run.as_str(), *index, OF_REWIND), sum)?;
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
    database: Arc<Quiet<Database>>,
    sums_from: u64,
}

/// The highest log index of what is in it; 0 if nothing is.
fn kept_before(transaction: &redb::WriteTransaction) -> Result<u64, redb::Error> {
    let mut highest = 0;
    for block in transaction.open_table(BLOCKS)?.iter()? {
        highest = highest.max(block?.0.value().1);
    }
    for rewind in transaction.open_table(REWINDS)?.iter()? {
        highest = highest.max(rewind?.0.value().1);
    }
    Ok(highest)
}

/// Why a run's reports cannot be read.
enum Unread {
    Database(redb::Error),
    /// What the log brought at this index is not as it was written.
    Changed(u64),
}

impl<E: Into<redb::Error>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

fn sum_of_block(run: &str, index: u64, process: u32, bytes: &[u8]) -> u64 {
    let place = [run.as_bytes(), &index.to_le_bytes(), &process.to_le_bytes()].concat();
    sealed::sum(&place, bytes)
}

fn sum_of_rewind(run: &str, index: u64, step: u64) -> u64 {
    let place = [run.as_bytes(), &index.to_le_bytes()].concat();
    sealed::sum(&place, &step.to_le_bytes())
}

impl BlockReader {
    /// Blocks of `run` whose index is above `after`: as many as fit a page. Blocks on the disk: call it where that is
    /// allowed.
    pub fn page(&self, run: &RunId, after: u64) -> Result<Page, StoreError> {
        self.reading(run, || self.read(run.as_str(), after))
    }

    fn reading<T>(&self, run: &RunId, read: impl FnOnce() -> Result<T, Unread>) -> Result<T, StoreError> {
        guarded(&self.path, || {
            read().map_err(|error| match error {
                Unread::Database(error) => StoreError::read(&self.path, error),
                Unread::Changed(index) => {
                    let what = format!("a report of run `{run}` (log index {index}) is not as it was written");
                    StoreError::damaged(&self.path, &what)
                }
            })
        })
    }

    /// Whether what stands at this place has the checksum that was written with it.
    fn check(
        &self,
        sums: &impl ReadableTable<(&'static str, u64, u8), u64>,
        place: (&str, u64, u8),
        sum: u64,
    ) -> Result<(), Unread> {
        let known = sums.get(place)?.map(|value| value.value());
        let is_sound =
            if place.1 >= self.sums_from { known == Some(sum) } else { known.is_none_or(|known| known == sum) };
        if is_sound { Ok(()) } else { Err(Unread::Changed(place.1)) }
    }

    /// Blocks and rewinds of `run` whose index is above `after`, as they came: as many as fit a page, and whether there are
    /// more.
    pub fn entries(&self, run: &RunId, after: u64) -> Result<(Vec<(u64, Entry)>, bool), StoreError> {
        let read = || -> Result<_, Unread> {
            let transaction = self.database.begin_read()?;
            let sums = transaction.open_table(SUMS)?;
            let range = || (run.as_str(), after.saturating_add(1))..=(run.as_str(), u64::MAX);
            let mut entries = Vec::new();
            let (mut size, mut last) = (0, None);
            for block in transaction.open_table(BLOCKS)?.range(range())? {
                let (key, value) = block?;
                if size >= PAGE_BYTES {
                    last = entries.last().map(|(index, _)| *index);
                    break;
                }
                let (index, (process, bytes)) = (key.value().1, value.value());
                self.check(&sums, (run.as_str(), index, OF_BLOCK), sum_of_block(run.as_str(), index, process, bytes))?;
                size += bytes.len();
                entries.push((index, Entry::Block(process, bytes.to_vec())));
            }
            for rewind in transaction.open_table(REWINDS)?.range(range())? {
                let (key, step) = rewind?;
                // Those behind the page come with the next one.
                let (index, step) = (key.value().1, step.value());
                if last.is_none_or(|last| index <= last) {
                    self.check(&sums, (run.as_str(), index, OF_REWIND), sum_of_rewind(run.as_str(), index, step))?;
                    entries.push((index, Entry::Rewind(step)));
                }
            }
            entries.sort_by_key(|(index, _)| *index);
            Ok((entries, last.is_some()))
        };
        self.reading(run, read)
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
        let runs = guarded(&self.path, || read().map_err(|error| StoreError::read(&self.path, error)))?;
        Ok(runs.iter().filter_map(|run| run.parse().ok()).collect())
    }

    fn read(&self, run: &str, after: u64) -> Result<Page, Unread> {
        let transaction = self.database.begin_read()?;
        let sums = transaction.open_table(SUMS)?;
        let mut rewinds = BTreeMap::new();
        for rewind in transaction.open_table(REWINDS)?.range((run, after)..=(run, u64::MAX))? {
            let (key, step) = rewind?;
            let (index, step) = (key.value().1, step.value());
            self.check(&sums, (run, index, OF_REWIND), sum_of_rewind(run, index, step))?;
            rewinds.insert(index, step);
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
            self.check(&sums, (run, index, OF_BLOCK), sum_of_block(run, index, process, bytes))?;
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
    fn a_report_that_is_not_as_it_was_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let name = "aaaaaaaaaa";
        let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
        let rewind = Effect::Rewind { run: run(name), step: 20 };
        database.write(&[(1, block(name, 1)), (2, rewind), (3, block(name, 2))], true).unwrap();
        let reader = database.reader();
        let refused = |change: &dyn Fn(&redb::WriteTransaction)| {
            let transaction = database.database.begin_write().unwrap();
            change(&transaction);
            transaction.commit().unwrap();
            let page = reader.page(&run(name), 0).unwrap_err().to_string();
            let entries = reader.entries(&run(name), 0).unwrap_err().to_string();
            assert!(page.contains("is not as it was written") && entries.contains("is not as it was written"));
            page
        };
        let of_block = |byte: u8, process| {
            move |transaction: &redb::WriteTransaction| {
                transaction.open_table(BLOCKS).unwrap().insert((name, 3), (process, &[byte][..])).unwrap();
            }
        };
        let words = "a report of run `aaaaaaaaaa` (log index 3) is not as it was written";
        assert!(refused(&of_block(3, 0)).contains(words));
        assert!(refused(&of_block(2, 1)).contains(words));
        let restored = refused(&|transaction| {
            of_block(2, 0)(transaction);
            transaction.open_table(REWINDS).unwrap().insert((name, 2), 21).unwrap();
        });
        assert!(restored.contains("log index 2"), "{restored}");
        let lost = refused(&|transaction| {
            transaction.open_table(REWINDS).unwrap().insert((name, 2), 20).unwrap();
            transaction.open_table(SUMS).unwrap().remove((name, 1, OF_BLOCK)).unwrap();
        });
        assert!(lost.contains("log index 1"), "{lost}");
    }

    #[test]
    fn reports_that_an_earlier_build_kept_without_checksums_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let name = "aaaaaaaaaa";
        let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
        database.write(&[(4, block(name, 1)), (9, block(name, 2))], true).unwrap();
        // As 0.1.0 left it: no checksums, and no word of where they begin.
        let transaction = database.database.begin_write().unwrap();
        transaction.delete_table(SUMS).unwrap();
        transaction.open_table(META).unwrap().retain(|_, _| false).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
        database.write(&[(10, block(name, 3))], true).unwrap();
        let bytes = |page: Page| page.blocks.iter().map(|block| block.bytes[0]).collect::<Vec<_>>();
        assert_eq!(bytes(database.reader().page(&run(name), 0).unwrap()), [1, 2, 3]);
        let transaction = database.database.begin_write().unwrap();
        transaction.open_table(SUMS).unwrap().remove((name, 10, OF_BLOCK)).unwrap();
        transaction.commit().unwrap();
        assert!(database.reader().page(&run(name), 0).is_err());
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
