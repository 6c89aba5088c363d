//! A rewind: what came after a step moves to a branch of its own.

use lockstep_common::RunId;
use lockstep_common::series::SeriesKey;
use redb::WriteTransaction;

use super::rows::{write_chunk, write_summary};
use crate::bucket::{Bucket, group};
use crate::column::Columns;
use crate::database::{BUCKETS, ChunkKey, HISTOGRAMS, INDEX, MEDIA, POINTS, SERIES, SeriesSummary, Snapshot, part_of};
use crate::error::TrackingError;

/// A series of which the end goes away.
pub(super) struct Cut {
    key: SeriesKey,
    /// Chunks that begin after the step, or reach beyond it: they are taken away.
    old: Vec<ChunkKey>,
    /// What remains of the chunk that reached beyond the step.
    kept: Option<(ChunkKey, Columns)>,
    moved: Vec<(ChunkKey, Columns)>,
    /// `None`: nothing remains.
    remains: Option<SeriesSummary>,
    pub(super) gone: SeriesSummary,
}

impl Cut {
    /// What `key` loses after `step`, to be series `id`.
    pub(super) fn of(
        snapshot: &Snapshot,
        key: SeriesKey,
        summary: &SeriesSummary,
        step: u64,
        id: u64,
    ) -> Result<Self, TrackingError> {
        let all = snapshot.index(summary.id, 0, u64::MAX)?;
        let (mut old, mut kept, mut moved) = (Vec::new(), None, Vec::new());
        let (mut remaining, mut going) = (Vec::new(), Vec::new());
        let mut last = summary.last;
        for (chunk, bucket) in all {
            if bucket.last_step <= step {
                remaining.push(bucket);
                continue;
            }
            old.push(chunk);
            let mut columns = snapshot.columns(chunk)?;
            let after = columns.split_after(step);
            going.extend(after.bucket());
            if let Some(first) = after.steps.first() {
                moved.push(((id, *first, chunk.2), after));
            }
            if let Some(bucket) = columns.bucket() {
                remaining.push(bucket);
                kept = Some((chunk, columns));
            }
        }
        let summary_of = |id, last, buckets: Vec<Bucket>| {
            let whole = group(buckets.into_iter(), |_| 0).pop()?;
            let Bucket { first_step, last_step, first_ms, last_ms, count, min, max, .. } = whole;
            Some(SeriesSummary { id, count, first_step, last_step, first_ms, last_ms, last, min, max })
        };
        let gone = summary_of(id, last, going).unwrap_or_else(|| summary.clone());
        if let Some((_, columns)) = &kept {
            last = columns.values.last().copied().unwrap_or(last);
        } else if let Some(before) = remaining.last() {
            let chunk = snapshot.index(summary.id, before.last_step, before.last_step)?.pop();
            let columns = chunk.map(|(chunk, _)| snapshot.columns(chunk)).transpose()?;
            last = columns.and_then(|columns| columns.values.last().copied()).unwrap_or(last);
        }
        let remains = summary_of(summary.id, last, remaining);
        Ok(Self { key, old, kept, moved, remains, gone })
    }

    pub(super) fn write(&self, transaction: &WriteTransaction, run: &RunId, branch: u32) -> Result<(), redb::Error> {
        for table in [POINTS, BUCKETS, INDEX] {
            let mut table = transaction.open_table(table)?;
            for chunk in &self.old {
                table.remove(chunk)?;
            }
        }
        for (chunk, columns) in self.kept.iter().chain(&self.moved) {
            write_chunk(transaction, *chunk, columns)?;
        }
        write_summary(transaction, run, branch, &self.key, &self.gone)?;
        if let Some(summary) = &self.remains {
            return write_summary(transaction, run, 0, &self.key, summary);
        }
        let row = (run.as_str(), 0, self.key.name.as_str(), part_of(&self.key));
        transaction.open_table(SERIES)?.remove(row)?;
        Ok(())
    }
}

/// Distributions and media after `step`.
pub(super) fn move_rest(
    transaction: &WriteTransaction,
    run: &RunId,
    branch: u32,
    step: u64,
) -> Result<(), redb::Error> {
    let run = run.as_str();
    let mut table = transaction.open_table(HISTOGRAMS)?;
    let mut moved = Vec::new();
    for row in table.extract_from_if((run, 0, "", 0)..(run, 1, "", 0), |key, _| key.3 > step)? {
        let (key, value) = row?;
        moved.push((key.value().2.to_owned(), key.value().3, value.value().to_vec()));
    }
    for (name, at, bytes) in moved {
        table.insert((run, branch, name.as_str(), at), bytes.as_slice())?;
    }
    let mut table = transaction.open_table(MEDIA)?;
    let mut moved = Vec::new();
    for row in table.extract_from_if((run, 0, step.saturating_add(1), "")..(run, 1, 0, ""), |_, _| true)? {
        let (key, value) = row?;
        moved.push((key.value().3.to_owned(), key.value().2, value.value().to_vec()));
    }
    for (name, at, bytes) in moved {
        table.insert((run, branch, at, name.as_str()), bytes.as_slice())?;
    }
    Ok(())
}
