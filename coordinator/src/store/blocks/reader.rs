//! What is read of the report database, beside the writer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lockstep_common::RunId;
use lockstep_host::quiet::Quiet;
use lockstep_rpc::StoredBlock;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{BLOCKS, OF_BLOCK, OF_REWIND, REWINDS, SUMS, sum_of_block, sum_of_rewind};
use crate::store::error::StoreError;
use crate::store::guarded;

/// Bytes of blocks read at a time: bounds memory, and fits a message.
pub(super) const PAGE_BYTES: usize = 4 << 20;

/// Some of a run's blocks, in order.
#[derive(Clone, Debug, Default, PartialEq)]
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

/// Reads blocks, beside the writer.
#[derive(Clone, Debug)]
pub struct BlockReader {
    pub(super) path: PathBuf,
    pub(super) database: Arc<Quiet<Database>>,
    pub(super) sums_from: u64,
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
            page.blocks.push(StoredBlock { index, process, cut, bytes: bytes.to_vec().into() });
        }
        Ok(page)
    }
}
