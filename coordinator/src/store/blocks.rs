//! The report database: blocks and rewinds of each run, by the index of the log entry that contained them.
//!
//! ```text
//!   index   10        14        17          21        30
//!           block     block     rewind 20   block     block
//!           steps     steps                 steps     steps
//!           1..=20    21..=40               21..=40   41..=60
//!                     cut at 20
//! ```
//!
//! A rollback deletes nothing. It adds a rewind, and a reader cuts each block at the smallest rewind that follows it. Writing the same
//! entry twice changes nothing, so that the log can be replayed after a crash.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_common::formats;
use lockstep_core::outcome::Effect;
use lockstep_host::durable::Place;
use lockstep_host::quiet::Quiet;
use redb::{Database, Durability, ReadableTable, TableDefinition};

use super::error::StoreError;
use super::sealed;
use super::{guarded, open_database};

mod reader;

pub use reader::{BlockReader, Entry, Page};

const BLOCKS: TableDefinition<(&str, u64), (u32, &[u8])> = TableDefinition::new("blocks");
const REWINDS: TableDefinition<(&str, u64), u64> = TableDefinition::new("rewinds");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Checksums of blocks and rewinds, by the same key and [`OF_BLOCK`] or [`OF_REWIND`].
const SUMS: TableDefinition<(&str, u64, u8), u64> = TableDefinition::new("sums");
const OF_BLOCK: u8 = 0;
const OF_REWIND: u8 = 1;
/// Log index of the newest effect in this database.
const NEWEST: &str = "newest_index";
/// First log index whose effects have checksums. Earlier versions wrote none.
const SUMS_FROM: &str = "sums_from_index";

/// The open report database. Only the store's thread writes to it.
#[derive(Debug)]
pub(super) struct BlockDatabase {
    path: PathBuf,
    place: Place,
    database: Arc<Quiet<Database>>,
    sums_from: u64,
    /// Whether the last write is not durable yet.
    lazy: bool,
}

impl BlockDatabase {
    /// Opens or creates `reports.redb` in `dir`.
    ///
    /// `log` is the range of possible log indices of the newest effect: from the newest one that the state database has recorded, to the
    /// last log entry.
    ///
    /// # Errors
    /// `Damaged` if the newest effect is outside of `log`, because the two databases are from different times.
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
                "it is older than `state.redb` beside it, which has recorded reports up to log index {counted}, but this file \
                 ends at {newest}; restore both files from one backup"
            )
        } else if newest > last {
            format!(
                "it is newer than `state.redb` beside it, whose log ends at index {last}, but this file has reports up to \
                 {newest}; restore both files from one backup"
            )
        } else {
            return Ok(Self { path, place, database: Arc::new(database), sums_from, lazy: false });
        };
        Err(StoreError::Damaged { path, detail })
    }

    pub(super) fn reader(&self) -> BlockReader {
        BlockReader { path: self.path.clone(), database: Arc::clone(&self.database), sums_from: self.sums_from }
    }

    /// Writes `effects`. With `sync`, all writes so far are durable afterwards.
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
                    // The archive is in the state database.
                    Effect::Archive(_) => {}
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

/// The highest log index of a block or rewind; 0 if there is none.
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

fn sum_of_block(run: &str, index: u64, process: u32, bytes: &[u8]) -> u64 {
    let place = [run.as_bytes(), &index.to_le_bytes(), &process.to_le_bytes()].concat();
    sealed::sum(&place, bytes)
}

fn sum_of_rewind(run: &str, index: u64, step: u64) -> u64 {
    let place = [run.as_bytes(), &index.to_le_bytes()].concat();
    sealed::sum(&place, &step.to_le_bytes())
}

#[cfg(test)]
mod tests;
