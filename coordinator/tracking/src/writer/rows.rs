//! How a run's tail is written: one function a row.

use lockstep_common::RunId;
use lockstep_common::series::SeriesKey;
use redb::WriteTransaction;

use crate::column::Columns;
use crate::database::{
    BUCKETS, ChunkKey, HISTOGRAMS, INDEX, LEFT_OUT, MEDIA, POINTS, RUNS, RunRow, SERIES, SeriesSummary, WATCHES,
    encode, part_of,
};
use crate::tail::RunTail;

pub(super) fn write_tail(transaction: &WriteTransaction, run: &RunId, tail: &RunTail) -> Result<(), redb::Error> {
    for (key, series) in tail.series.iter().filter(|(_, series)| series.dirty) {
        for (chunk, columns) in series.chunks() {
            write_chunk(transaction, chunk, columns)?;
        }
        write_summary(transaction, run, 0, key, &series.summary)?;
    }
    let mut histograms = transaction.open_table(HISTOGRAMS)?;
    for (key, histogram) in &tail.histograms {
        histograms.insert((run.as_str(), 0, key.name.as_str(), histogram.step), encode(histogram).as_slice())?;
    }
    let mut media = transaction.open_table(MEDIA)?;
    for one in &tail.media {
        media.insert((run.as_str(), 0, one.step, one.name.as_str()), encode(one).as_slice())?;
    }
    write_run(transaction, run, tail)
}

pub(super) fn write_run(transaction: &WriteTransaction, run: &RunId, tail: &RunTail) -> Result<(), redb::Error> {
    transaction.open_table(RUNS)?.insert(run.as_str(), encode::<RunRow>(&tail.row).as_slice())?;
    transaction.open_table(WATCHES)?.insert(run.as_str(), encode(&tail.watch).as_slice())?;
    if let Some(left_out) = &tail.left_out {
        transaction.open_table(LEFT_OUT)?.insert(run.as_str(), encode(left_out).as_slice())?;
    }
    Ok(())
}

pub(super) fn write_chunk(transaction: &WriteTransaction, key: ChunkKey, columns: &Columns) -> Result<(), redb::Error> {
    let Some(bucket) = columns.bucket() else { return Ok(()) };
    transaction.open_table(POINTS)?.insert(key, columns.encode().as_slice())?;
    transaction.open_table(BUCKETS)?.insert(key, encode(&columns.buckets()).as_slice())?;
    transaction.open_table(INDEX)?.insert(key, encode(&bucket).as_slice())?;
    Ok(())
}

pub(super) fn write_summary(
    transaction: &WriteTransaction,
    run: &RunId,
    branch: u32,
    key: &SeriesKey,
    summary: &SeriesSummary,
) -> Result<(), redb::Error> {
    let row = (run.as_str(), branch, key.name.as_str(), part_of(key));
    transaction.open_table(SERIES)?.insert(row, encode(summary).as_slice())?;
    Ok(())
}
