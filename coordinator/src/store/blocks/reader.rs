//! Readers of the report database, which can be used while the store writes.

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

/// Bytes of blocks after which a page ends. Bounds memory, and the size of a message.
pub(super) const PAGE_BYTES: usize = 4 << 20;

/// Consecutive blocks of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// In the order of their log indices.
    pub blocks: Vec<StoredBlock>,
    /// Whether more blocks follow.
    pub more: bool,
}

/// An effect of the log on a run's reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Process index, and the encoded `ReportBlock`.
    Block(u32, Vec<u8>),
    /// The run was rolled back to this step.
    Rewind(u64),
}

/// Reads blocks while the store writes.
#[derive(Clone, Debug)]
pub struct BlockReader {
    pub(super) path: PathBuf,
    pub(super) database: Arc<Quiet<Database>>,
    pub(super) sums_from: u64,
}

enum Unread {
    Database(redb::Error),
    /// The effect with this log index fails its checksum.
    Changed(u64),
}

impl<E: Into<redb::Error>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

impl BlockReader {
    /// The next page of blocks of `run` with a log index above `after`, each cut at the smallest rewind that follows it. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// `Damaged` if a block or a rewind fails its checksum; `Read`.
    pub fn page(&self, run: &RunId, after: u64) -> Result<Page, StoreError> {
        self.reading(run, || self.read(run.as_str(), after))
    }

    fn reading<T>(&self, run: &RunId, read: impl FnOnce() -> Result<T, Unread>) -> Result<T, StoreError> {
        guarded(&self.path, || {
            read().map_err(|error| match error {
                Unread::Database(error) => StoreError::read(&self.path, error),
                Unread::Changed(index) => {
                    let what = format!("a report of run `{run}` (log index {index}) fails its checksum");
                    StoreError::damaged(&self.path, &what)
                }
            })
        })
    }

    /// Checks that `sum` is the stored checksum for `place`. Effects below `sums_from` may have none.
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

    /// The next page of blocks and rewinds of `run` with a log index above `after`, each with its log index, in the log's order; and
    /// whether more follow. Blocks on the disk.
    ///
    /// # Errors
    /// As [`BlockReader::page`].
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
                // Rewinds after the last block of this page are part of the next page.
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

    /// Ids of all runs with at least one block.
    pub fn runs(&self) -> Result<Vec<RunId>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(BLOCKS)?;
            let mut runs: Vec<String> = Vec::new();
            // `run\0` is the smallest key after all blocks of a run.
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
