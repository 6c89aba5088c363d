//! What the database held at one moment, read by kind of row.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_common::RunId;
use lockstep_common::series::{Histogram, SeriesKey};
use lockstep_host::quiet::Quiet;
use redb::{ReadTransaction, TableDefinition};
use serde::de::DeserializeOwned;

use super::{
    BUCKETS, ChunkKey, Database, HISTOGRAMS, INDEX, LEFT_OUT, MEDIA, Media, POINTS, RUNS, RunRow, SERIES,
    SeriesSummary, WATCHES, key_of, part_of,
};
use crate::bucket::Bucket;
use crate::error::TrackingError;
use crate::quota::{LeftOut, Used};

/// What the database held at one moment.
pub(crate) struct Snapshot {
    pub(super) transaction: Quiet<ReadTransaction>,
    pub(super) database: Arc<Database>,
}

/// A chunk's key, and all of it as one.
type Indexed = (ChunkKey, Bucket);

impl Snapshot {
    fn all<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, TrackingError> {
        let read = || read(&self.transaction);
        self.database.guarded(|| read().map_err(|error| TrackingError::database("read", &self.database.path, error)))
    }

    pub(crate) fn damaged(&self, detail: &str) -> TrackingError {
        self.database.damaged(detail)
    }

    fn row<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, TrackingError> {
        postcard::from_bytes(bytes).map_err(|_| self.database.damaged("a row cannot be read"))
    }

    pub(crate) fn run(&self, run: &RunId) -> Result<Option<RunRow>, TrackingError> {
        let bytes = self
            .all(|transaction| Ok(transaction.open_table(RUNS)?.get(run.as_str())?.map(|row| row.value().to_vec())))?;
        bytes.map(|bytes| self.row(&bytes)).transpose()
    }

    /// Of each run, how many of its alarms stand.
    pub(crate) fn standing(&self) -> Result<BTreeMap<RunId, u64>, TrackingError> {
        let rows = self.all(|transaction| {
            use redb::ReadableTable as _;
            let mut rows = Vec::new();
            for row in transaction.open_table(RUNS)?.iter()? {
                let (run, row) = row?;
                rows.push((run.value().to_owned(), row.value().to_vec()));
            }
            Ok(rows)
        })?;
        let mut all = BTreeMap::new();
        for (run, bytes) in rows {
            let run = run.parse().map_err(|_| self.database.damaged("a run's id cannot be read"))?;
            all.insert(run, self.row::<RunRow>(&bytes)?.standing);
        }
        Ok(all)
    }

    pub(crate) fn watch(&self, run: &RunId) -> Result<Option<Vec<u8>>, TrackingError> {
        self.all(|transaction| Ok(transaction.open_table(WATCHES)?.get(run.as_str())?.map(|row| row.value().to_vec())))
    }

    /// How many series the run has on its main branch.
    pub(crate) fn count_series(&self, run: &RunId) -> Result<u64, TrackingError> {
        self.all(|transaction| {
            let table = transaction.open_table(SERIES)?;
            let rows = table.range((run.as_str(), 0, "", i64::MIN)..(run.as_str(), 1, "", i64::MIN))?;
            Ok(rows.count() as u64)
        })
    }

    /// Those of a branch, by name and part.
    pub(crate) fn series(&self, run: &RunId, branch: u32) -> Result<Vec<(SeriesKey, SeriesSummary)>, TrackingError> {
        let rows = self.all(|transaction| {
            let table = transaction.open_table(SERIES)?;
            let mut rows = Vec::new();
            for row in table
                .range((run.as_str(), branch, "", i64::MIN)..(run.as_str(), branch.saturating_add(1), "", i64::MIN))?
            {
                let (key, value) = row?;
                let (_, _, name, part) = key.value();
                rows.push((key_of(name, part), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        rows.into_iter().map(|(key, bytes)| Ok((key, self.row(&bytes)?))).collect()
    }

    pub(crate) fn one_series(
        &self,
        run: &RunId,
        branch: u32,
        key: &SeriesKey,
    ) -> Result<Option<SeriesSummary>, TrackingError> {
        let bytes = self.all(|transaction| {
            let row = transaction.open_table(SERIES)?;
            let row = row.get((run.as_str(), branch, key.name.as_str(), part_of(key)))?;
            Ok(row.map(|row| row.value().to_vec()))
        })?;
        bytes.map(|bytes| self.row(&bytes)).transpose()
    }

    /// The greatest number of a series.
    pub(crate) fn last_id(&self) -> Result<u64, TrackingError> {
        self.all(|transaction| {
            use redb::ReadableTable as _;
            Ok(transaction.open_table(INDEX)?.last()?.map_or(0, |(key, _)| key.value().0))
        })
    }

    /// The chunks of series `id` that may hold steps from `from` to `to`.
    pub(crate) fn index(&self, id: u64, from: u64, to: u64) -> Result<Vec<Indexed>, TrackingError> {
        let rows = self.all(|transaction| {
            let table = transaction.open_table(INDEX)?;
            // A chunk that begins before `from` may reach into it.
            let begin = match table.range((id, 0, 0)..(id, from, 0))?.next_back() {
                Some(row) => row?.0.value(),
                None => (id, from, 0),
            };
            let mut rows = Vec::new();
            for row in table.range(begin..=(id, to, u64::MAX))? {
                let (key, value) = row?;
                rows.push((key.value(), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        rows.into_iter().map(|(key, bytes)| Ok((key, self.row(&bytes)?))).collect()
    }

    pub(crate) fn buckets(&self, key: ChunkKey) -> Result<Vec<Bucket>, TrackingError> {
        let bytes = self.chunk(BUCKETS, key)?;
        self.row(&bytes)
    }

    pub(crate) fn columns(&self, key: ChunkKey) -> Result<crate::column::Columns, TrackingError> {
        let bytes = self.chunk(POINTS, key)?;
        let decode = || Ok(crate::column::Columns::decode(&bytes));
        self.database.guarded(decode)?.ok_or_else(|| self.database.damaged("a chunk cannot be read"))
    }

    fn chunk(&self, table: TableDefinition<ChunkKey, &[u8]>, key: ChunkKey) -> Result<Vec<u8>, TrackingError> {
        let bytes =
            self.all(|transaction| Ok(transaction.open_table(table)?.get(key)?.map(|row| row.value().to_vec())))?;
        bytes.ok_or_else(|| self.database.damaged("a chunk is missing"))
    }

    /// Names of what there are distributions of.
    pub(crate) fn histogram_names(&self, run: &RunId) -> Result<Vec<String>, TrackingError> {
        self.all(|transaction| {
            let table = transaction.open_table(HISTOGRAMS)?;
            let mut names: Vec<String> = Vec::new();
            // From each name straight to the next: there may be many steps of each.
            let mut begin = String::new();
            while let Some(row) = table.range((run.as_str(), 0, begin.as_str(), 0)..(run.as_str(), 1, "", 0))?.next() {
                let name = row?.0.value().2.to_owned();
                begin = format!("{name}\0");
                names.push(name);
            }
            Ok(names)
        })
    }

    pub(crate) fn histograms(&self, run: &RunId, branch: u32, name: &str) -> Result<Vec<Histogram>, TrackingError> {
        let rows = self.all(|transaction| {
            let table = transaction.open_table(HISTOGRAMS)?;
            let range = (run.as_str(), branch, name, 0)..=(run.as_str(), branch, name, u64::MAX);
            table.range(range)?.map(|row| Ok(row?.1.value().to_vec())).collect::<Result<Vec<_>, redb::Error>>()
        })?;
        rows.iter().map(|bytes| self.row(bytes)).collect()
    }

    pub(crate) fn left_out(&self, run: &RunId) -> Result<Option<LeftOut>, TrackingError> {
        let bytes = self.all(|transaction| {
            Ok(transaction.open_table(LEFT_OUT)?.get(run.as_str())?.map(|row| row.value().to_vec()))
        })?;
        bytes.map(|bytes| self.row(&bytes)).transpose()
    }

    /// All media of the run, those of its branches too.
    pub(crate) fn media_used(&self, run: &RunId) -> Result<Used, TrackingError> {
        let mut used = Used::default();
        let rows = self.all(|transaction| {
            let table = transaction.open_table(MEDIA)?;
            let range = (run.as_str(), 0, 0, "")..=(run.as_str(), u32::MAX, u64::MAX, "");
            table
                .range(range)?
                .map(|row| Ok(postcard::from_bytes(row?.1.value())))
                .collect::<Result<Vec<_>, redb::Error>>()
        })?;
        for one in rows {
            used.add(&one.map_err(|_| self.database.damaged("a row cannot be read"))?);
        }
        Ok(used)
    }

    pub(crate) fn media(&self, run: &RunId) -> Result<Vec<Media>, TrackingError> {
        let rows = self.all(|transaction| {
            let table = transaction.open_table(MEDIA)?;
            let range = (run.as_str(), 0, 0, "")..(run.as_str(), 1, 0, "");
            table.range(range)?.map(|row| Ok(row?.1.value().to_vec())).collect::<Result<Vec<_>, redb::Error>>()
        })?;
        rows.iter().map(|bytes| self.row(bytes)).collect()
    }
}
