//! A block's numbers, taken into the tail of their run.

use lockstep_common::RunId;
use lockstep_common::manifest::Piece;
use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::MediaReport;
use prost::Message as _;

use crate::column::{CHUNK, Columns};
use crate::database::{Media, SeriesSummary, Snapshot};
use crate::error::TrackingError;
use crate::points::BlockMetrics;
use crate::quota::{NAME_BYTES, Quota};
use crate::tail::{RunTail, SeriesTail};

pub(super) fn append(
    tail: &mut RunTail,
    snapshot: &Snapshot,
    run: &RunId,
    metrics: BlockMetrics,
    last_id: &mut u64,
    quota: &Quota,
) -> Result<(), TrackingError> {
    tail.dirty = true;
    tail.row.dropped = tail.row.dropped.saturating_add(metrics.dropped);
    if let Some(model) = metrics.model {
        let names: Vec<String> = model.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        tail.watch.layers(&names);
        tail.row.model = model.encode_to_vec();
    }
    for unfit in metrics.unfit {
        tail.leave_out(run, unfit);
    }
    for (key, points) in metrics.points {
        if !tail.series.contains_key(&key) {
            let series = if let Some(summary) = snapshot.one_series(run, 0, &key)? {
                SeriesTail::new(summary.clone(), open_chunk(snapshot, &summary)?)
            } else if let Some(why) = no_room(&key, tail.known_series, quota) {
                if let Some(first) = points.first() {
                    tail.leave_out_series(run, &key, first, why);
                }
                continue;
            } else {
                *last_id += 1;
                tail.known_series += 1;
                SeriesTail::empty(*last_id)
            };
            tail.series.insert(key.clone(), series);
        }
        let Some(series) = tail.series.get_mut(&key) else { continue };
        for point in &points {
            series.push(point);
            tail.watch.point(&key, point);
        }
    }
    for (key, histogram) in metrics.histograms {
        if let Some(why) = too_long(&key) {
            let first = Point { step: histogram.step, at_ms: histogram.at_ms, value: 0.0 };
            tail.leave_out_series(run, &key, &first, why);
            continue;
        }
        tail.watch.histogram(&key, &histogram);
        tail.histograms.push((key, histogram));
    }
    for report in metrics.media {
        tail.take_media(run, media(report), quota);
    }
    Ok(())
}

/// Why a new series finds no room in a run that has `known` of them.
fn no_room(key: &SeriesKey, known: u64, quota: &Quota) -> Option<String> {
    let most = quota.series;
    let full = || (known >= most).then(|| format!("a run may have {most} series (`limits.series` of the coordinator)"));
    too_long(key).or_else(full)
}

fn too_long(key: &SeriesKey) -> Option<String> {
    let bytes = key.name.len();
    (bytes > NAME_BYTES).then(|| format!("its name has {bytes} bytes, more than {NAME_BYTES}"))
}

/// The last chunk, if there is room in it.
fn open_chunk(snapshot: &Snapshot, summary: &SeriesSummary) -> Result<Columns, TrackingError> {
    match snapshot.index(summary.id, summary.last_step, u64::MAX)?.pop() {
        Some((key, bucket)) if bucket.count < CHUNK as u64 => snapshot.columns(key),
        _ => Ok(Columns::default()),
    }
}

fn media(report: MediaReport) -> Media {
    let MediaReport { name, step, at_ms, kind, text, blob, file_name } = report;
    let piece = blob.and_then(|blob| Piece::try_from(blob).ok());
    let blob = piece.map(|piece| (piece.digest.to_hex(), piece.bytes));
    Media { name, step, at_ms, kind, text, blob, file_name }
}
