//! `tracking.redb`: what is in it, and how a row looks.
//!
//! A series is cut into chunks of 4,096 points. Each has three rows under one key: its columns, its buckets of 64 points, and
//! one bucket of all; so a million points are drawn from 16,000 buckets, and a hundred million from 25,000.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_common::series::SeriesKey;
use lockstep_host::quiet::Quiet;
use redb::{Database as Redb, ReadableDatabase, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::error::TrackingError;
use crate::file::{guarded, is_unborn, private};

mod snapshot;

pub(crate) use snapshot::Snapshot;

/// Run, branch, name, part (-1: none) → [`SeriesSummary`].
pub(crate) const SERIES: TableDefinition<(&str, u32, &str, i64), &[u8]> = TableDefinition::new("series");
/// Key of a chunk: number of the series, its first step, and how many points of the series go before it.
pub(crate) type ChunkKey = (u64, u64, u64);
/// The whole chunk as one [`Bucket`](crate::bucket::Bucket).
pub(crate) const INDEX: TableDefinition<ChunkKey, &[u8]> = TableDefinition::new("index");
/// Its buckets.
pub(crate) const BUCKETS: TableDefinition<ChunkKey, &[u8]> = TableDefinition::new("buckets");
/// Its columns.
pub(crate) const POINTS: TableDefinition<ChunkKey, &[u8]> = TableDefinition::new("points");
/// Run, branch, name, step → [`Histogram`](lockstep_common::series::Histogram).
pub(crate) const HISTOGRAMS: TableDefinition<(&str, u32, &str, u64), &[u8]> = TableDefinition::new("histograms");
/// Run, branch, step, name → [`Media`].
pub(crate) const MEDIA: TableDefinition<(&str, u32, u64, &str), &[u8]> = TableDefinition::new("media");
/// Run → [`RunRow`].
pub(crate) const RUNS: TableDefinition<&str, &[u8]> = TableDefinition::new("runs");
/// Run → its alarms' state.
pub(crate) const WATCHES: TableDefinition<&str, &[u8]> = TableDefinition::new("watches");
/// Run → [`LeftOut`](crate::quota::LeftOut). Programs of before did not have it.
pub(crate) const LEFT_OUT: TableDefinition<&str, &[u8]> = TableDefinition::new("left_out");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The format that this program writes. Another one is made again from the reports.
const FORMAT: u64 = lockstep_common::formats::TRACKING.written;

/// Memory for pages of the database.
const CACHE_BYTES: usize = 32 << 20;

/// What can be said of a series without its points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesSummary {
    /// Its number in the database.
    pub(crate) id: u64,
    /// Points.
    pub count: u64,
    /// Step of the first.
    pub first_step: u64,
    /// Step of the last.
    pub last_step: u64,
    /// Time of the first, in milliseconds of Unix time.
    pub first_ms: u64,
    /// Time of the last.
    pub last_ms: u64,
    /// The last value.
    pub last: f64,
    /// The least finite value; infinite if there is none, as the next.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// Steps that a run left behind when it was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its number, from 1; 0 is the run itself.
    pub branch: u32,
    /// The step that the run went back to.
    pub after_step: u64,
    /// The last one that was left behind.
    pub last_step: u64,
}

/// An image, a text or a file of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// What it is called.
    pub name: String,
    /// Steps completed.
    pub step: u64,
    /// In milliseconds of Unix time.
    pub at_ms: u64,
    /// `image`, `text` or `artifact`.
    pub kind: String,
    /// A short text.
    pub text: String,
    /// Digest, in hexadecimal digits, and bytes of what is in the blob store.
    pub blob: Option<(String, u64)>,
    /// Of an artifact.
    pub file_name: String,
}

/// What is known of a run as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRow {
    /// The log index up to which everything is in here.
    pub(crate) cursor: u64,
    pub(crate) branches: Vec<Branch>,
    /// The encoded `ModelReport`.
    pub(crate) model: Vec<u8>,
    /// Values of telemetry that were dropped on the way.
    pub(crate) dropped: u64,
    /// Alarms that stand.
    pub(crate) standing: u64,
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    redb: Quiet<Redb>,
    /// Whether something in it was not as it was written.
    is_damaged: AtomicBool,
}

impl Database {
    /// Opens or makes it; one of another format is made anew.
    ///
    /// # Errors
    /// `Database`, and `Damaged` for pages that cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, TrackingError> {
        let redb = guarded(path, || Self::open_file(path))?;
        Ok(Self { path: path.to_owned(), redb, is_damaged: AtomicBool::new(false) })
    }

    fn open_file(path: &Path) -> Result<Quiet<Redb>, TrackingError> {
        let fail = |action| move |error: redb::Error| TrackingError::database(action, path, error);
        let create = || {
            private(path).map_err(redb::StorageError::Io)?;
            Redb::builder().set_cache_size(CACHE_BYTES).create(path).map(Quiet::new)
        };
        // Of a start that was killed before it was whole; what is in it is derived from the reports.
        if is_unborn(path).map_err(|error| fail("read")(redb::StorageError::Io(error).into()))? {
            std::fs::remove_file(path).map_err(|error| fail("write")(redb::StorageError::Io(error).into()))?;
        }
        let mut redb = create().map_err(|error| fail("open")(error.into()))?;
        if format(&redb).map_err(fail("read"))?.is_some_and(|found| found != FORMAT) {
            drop(redb);
            std::fs::remove_file(path).map_err(|error| fail("write")(redb::StorageError::Io(error).into()))?;
            redb = create().map_err(|error| fail("open")(error.into()))?;
        }
        stamp(&redb).map_err(fail("write"))?;
        Ok(redb)
    }

    /// What is there now.
    pub(crate) fn snapshot(self: &Arc<Self>) -> Result<Snapshot, TrackingError> {
        let begin = || self.redb.begin_read().map_err(|error| TrackingError::database("read", &self.path, error));
        let transaction = Quiet::new(self.guarded(begin)?);
        Ok(Snapshot { transaction, database: Arc::clone(self) })
    }

    /// Writes what `body` does, durably, all or nothing. `committing` runs just before it can be seen.
    pub(crate) fn write<G>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
        committing: impl FnOnce() -> G,
    ) -> Result<G, TrackingError> {
        let write = || -> Result<G, redb::Error> {
            let transaction = self.redb.begin_write()?;
            body(&transaction)?;
            let guard = committing();
            transaction.commit()?;
            Ok(guard)
        };
        self.guarded(|| write().map_err(|error| TrackingError::database("write", &self.path, error)))
    }

    /// What `read` finds; that it found damage is remembered. Pages that are damaged panic in redb: that is damage, too.
    pub(crate) fn guarded<T>(&self, read: impl FnOnce() -> Result<T, TrackingError>) -> Result<T, TrackingError> {
        let found = guarded(&self.path, read);
        if found.as_ref().is_err_and(TrackingError::is_damage) {
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        found
    }

    /// Whether something in it was not as it was written, as far as anybody has looked.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, detail: &str) -> TrackingError {
        self.is_damaged.store(true, Ordering::Relaxed);
        TrackingError::Damaged { path: self.path.clone(), detail: detail.to_owned() }
    }
}

fn format(redb: &Redb) -> Result<Option<u64>, redb::Error> {
    match redb.begin_read()?.open_table(META) {
        Ok(table) => Ok(table.get("format")?.map(|value| value.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes all tables.
fn stamp(redb: &Redb) -> Result<(), redb::Error> {
    let transaction = redb.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(SERIES)?;
    for table in [INDEX, BUCKETS, POINTS] {
        transaction.open_table(table)?;
    }
    transaction.open_table(HISTOGRAMS)?;
    transaction.open_table(MEDIA)?;
    transaction.open_table(RUNS)?;
    transaction.open_table(WATCHES)?;
    transaction.open_table(LEFT_OUT)?;
    transaction.commit()?;
    Ok(())
}

pub(crate) fn part_of(key: &SeriesKey) -> i64 {
    key.part.map_or(-1, i64::from)
}

pub(crate) fn key_of(name: &str, part: i64) -> SeriesKey {
    SeriesKey { name: name.to_owned(), part: u32::try_from(part).ok() }
}

/// A row's bytes.
pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_stdvec(row).expect("our own rows serialize")
}
