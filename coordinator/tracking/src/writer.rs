//! The one that writes: takes blocks and rewinds in the log's order, and flushes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lockstep_alarms::{Alarm, Watch};
use lockstep_common::manifest::Piece;
use lockstep_common::series::{Point, SeriesKey};
use lockstep_common::{RunId, chain};
use lockstep_rpc::{MediaReport, ReportBlock};
use prost::Message as _;
use redb::WriteTransaction;
use tracing::warn;

use crate::bucket::{Bucket, group};
use crate::column::{CHUNK, Columns};
use crate::database::{
    BUCKETS, Branch, ChunkKey, Database, HISTOGRAMS, INDEX, LEFT_OUT, MEDIA, Media, POINTS, RUNS, RunRow, SERIES,
    SeriesSummary, Snapshot, WATCHES, encode, part_of,
};
use crate::error::TrackingError;
use crate::file::{aside, set_aside};
use crate::points::{Brought, brought};
use crate::query::{Shared, Tracking};
use crate::quota::{LeftOut, NAME_BYTES, Quota};
use crate::tail::{RunTail, SERIES_POINTS, SeriesTail};

/// Points in memory, of all runs, above which those of runs at rest are let go: 24 bytes each.
const MOST_POINTS: usize = 4 << 20;

/// Points that are not written yet, above which they are: what is in memory is bounded however fast they come.
const MOST_UNWRITTEN: usize = 1 << 20;

/// What happened to a run.
#[derive(Debug)]
pub enum Event {
    /// A process reported. Boxed: it is large, and rewinds are small.
    Block(Box<ReportBlock>),
    /// The run went back to this step.
    Rewind(u64),
}

/// Writes; there is one.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    last_id: u64,
    /// Points that are only in memory.
    unwritten: usize,
    quota: Quota,
}

impl Writer {
    /// Opens the database at `path`, or makes it. One that is damaged is set aside, and a new one takes its place.
    pub fn open(path: &Path) -> Result<(Self, Tracking), TrackingError> {
        let shared = match Database::open(path).and_then(Shared::new) {
            Err(error) if error.is_damage() => Shared::new(replaced(path, &error)?)?,
            opened => opened?,
        };
        let last_id = match shared.database().snapshot()?.last_id() {
            Err(error) if error.is_damage() => {
                shared.begin_anew(replaced(path, &error)?);
                0
            }
            found => found?,
        };
        let shared = Arc::new(shared);
        let writer = Self { shared: Arc::clone(&shared), last_id, unwritten: 0, quota: Quota::default() };
        Ok((writer, Tracking::new(shared)))
    }

    /// With another quota of each run's images, texts and files.
    #[must_use]
    pub fn with_quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// Sets the database aside, because of the damage that is `why`, and goes on with a new one: all events have to be taken again.
    pub fn begin_anew(&mut self, why: &TrackingError) -> Result<(), TrackingError> {
        let database = replaced(self.shared.database().path(), why)?;
        self.shared.begin_anew(database);
        (self.last_id, self.unwritten) = (0, 0);
        Ok(())
    }

    /// # Errors
    /// `Damaged` if whoever has read the database, here or elsewhere, found it so.
    pub fn check(&self) -> Result<(), TrackingError> {
        let database = self.shared.database();
        if !database.is_damaged() {
            return Ok(());
        }
        let detail = "what was read from it is not as it was written".to_owned();
        Err(TrackingError::Damaged { path: database.path().to_owned(), detail })
    }

    /// The log index up to which everything of `run` was taken.
    pub fn cursor(&self, run: &RunId) -> Result<u64, TrackingError> {
        if let Some(tail) = self.shared.tails().get(run) {
            return Ok(tail.row.cursor);
        }
        Ok(self.shared.database().snapshot()?.run(run)?.map_or(0, |row| row.cursor))
    }

    /// Takes what the log brought at `index`; what was taken before changes nothing.
    pub fn take(&mut self, run: &RunId, index: u64, event: Event) -> Result<(), TrackingError> {
        if index <= self.cursor(run)? {
            return Ok(());
        }
        match event {
            Event::Block(block) => {
                let brought = brought(*block);
                self.unwritten += brought.points.values().map(|points| SERIES_POINTS + points.len()).sum::<usize>();
                let last_id = &mut self.last_id;
                let snapshot = self.shared.database().snapshot()?;
                let mut tails = self.shared.tails_mut();
                let tail = load(&mut tails, &snapshot, run)?;
                append(tail, &snapshot, run, brought, last_id, &self.quota)?;
                tail.row.cursor = index;
                tail.row.standing = tail.count_standing();
                self.shared.note_standing(run, tail.row.standing);
                drop(tails);
                if self.unwritten > MOST_UNWRITTEN {
                    self.flush()?;
                }
            }
            Event::Rewind(step) => {
                self.flush()?;
                self.rewind(run, index, step)?;
            }
        }
        Ok(())
    }

    /// Forgets what is in memory of `run`, which is then read again: an event of it could not be taken.
    pub fn forget(&mut self, run: &RunId) {
        self.shared.tails_mut().remove(run);
    }

    /// Alarms of `run` that were raised since the last call; after a crash perhaps some of them again.
    pub fn take_raised(&mut self, run: &RunId) -> Vec<Alarm> {
        let mut tails = self.shared.tails_mut();
        let Some(tail) = tails.get_mut(run) else { return Vec::new() };
        let mut raised = tail.watch.take_raised();
        if std::mem::take(&mut tail.left_out_now) {
            raised.extend(tail.left_out.as_ref().map(LeftOut::alarm));
        }
        raised
    }

    /// Writes what is only in memory.
    pub fn flush(&mut self) -> Result<(), TrackingError> {
        let write = |transaction: &WriteTransaction| {
            for (run, tail) in self.shared.tails().iter().filter(|(_, tail)| tail.dirty) {
                write_tail(transaction, run, tail)?;
            }
            Ok(())
        };
        if !self.shared.tails().values().any(|tail| tail.dirty) {
            return Ok(());
        }
        self.unwritten = 0;
        // Nobody sees a moment at which points are in both places, or in none.
        let mut tails = self.shared.database().write(write, || self.shared.tails_mut())?;
        tails.values_mut().for_each(RunTail::written);
        if tails.values().map(RunTail::points).sum::<usize>() > MOST_POINTS {
            tails.clear();
        }
        Ok(())
    }

    /// Moves what came after `step` to a branch of its own.
    fn rewind(&mut self, run: &RunId, index: u64, step: u64) -> Result<(), TrackingError> {
        let snapshot = self.shared.database().snapshot()?;
        let mut tail = match self.shared.tails_mut().remove(run) {
            Some(tail) => tail,
            None => read(&snapshot, run)?,
        };
        let mut cuts = Vec::new();
        for (key, summary) in snapshot.series(run, 0)? {
            if summary.last_step > step {
                self.last_id += 1;
                cuts.push(Cut::of(&snapshot, key, &summary, step, self.last_id)?);
            }
        }
        let last_step = cuts.iter().map(|cut| cut.gone.last_step).max();
        if let Some(last_step) = last_step {
            let branch = tail.row.branches.len() as u32 + 1;
            tail.row.branches.push(Branch { branch, after_step: step, last_step });
        }
        tail.watch.rewind(step);
        tail.row.cursor = index;
        tail.row.standing = tail.count_standing();
        self.shared.note_standing(run, tail.row.standing);
        let write = |transaction: &WriteTransaction| {
            let branch = tail.row.branches.len() as u32;
            for cut in &cuts {
                cut.write(transaction, run, branch)?;
            }
            move_rest(transaction, run, branch, step)?;
            write_run(transaction, run, &tail)
        };
        self.shared.database().write(write, || ())?;
        Ok(())
    }
}

/// A new database in the place of the one at `path`, which is set aside because of the damage that is `why`.
fn replaced(path: &Path, why: &TrackingError) -> Result<Database, TrackingError> {
    warn!(
        aside = %aside(path).display(),
        "{}; it was set aside, and the numbers of all runs are read again from the reports",
        chain(why)
    );
    set_aside(path)?;
    Database::open(path)
}

/// The run's tail; read if it is not in memory.
fn load<'a>(
    tails: &'a mut BTreeMap<RunId, RunTail>,
    snapshot: &Snapshot,
    run: &RunId,
) -> Result<&'a mut RunTail, TrackingError> {
    use std::collections::btree_map::Entry;
    match tails.entry(run.clone()) {
        Entry::Occupied(found) => Ok(found.into_mut()),
        Entry::Vacant(place) => Ok(place.insert(read(snapshot, run)?)),
    }
}

/// The run's tail, as it was written.
fn read(snapshot: &Snapshot, run: &RunId) -> Result<RunTail, TrackingError> {
    let (row, watch) = (snapshot.run(run)?.unwrap_or_default(), watch_of(snapshot, run)?);
    let used = (snapshot.media_used(run)?, snapshot.count_series(run)?);
    Ok(RunTail::new(row, watch, used, snapshot.left_out(run)?))
}

/// As it was kept; one that another version wrote begins anew.
fn watch_of(snapshot: &Snapshot, run: &RunId) -> Result<Watch, TrackingError> {
    let kept = snapshot.watch(run)?;
    Ok(kept.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_else(|| Watch::new(&[])))
}

fn append(
    tail: &mut RunTail,
    snapshot: &Snapshot,
    run: &RunId,
    brought: Brought,
    last_id: &mut u64,
    quota: &Quota,
) -> Result<(), TrackingError> {
    tail.dirty = true;
    tail.row.dropped = tail.row.dropped.saturating_add(brought.dropped);
    if let Some(model) = brought.model {
        let names: Vec<String> = model.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        tail.watch.layers(&names);
        tail.row.model = model.encode_to_vec();
    }
    for unfit in brought.unfit {
        tail.leave_out(run, unfit);
    }
    for (key, points) in brought.points {
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
    for (key, histogram) in brought.histograms {
        if let Some(why) = too_long(&key) {
            let first = Point { step: histogram.step, at_ms: histogram.at_ms, value: 0.0 };
            tail.leave_out_series(run, &key, &first, why);
            continue;
        }
        tail.watch.histogram(&key, &histogram);
        tail.histograms.push((key, histogram));
    }
    for report in brought.media {
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

fn write_tail(transaction: &WriteTransaction, run: &RunId, tail: &RunTail) -> Result<(), redb::Error> {
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

fn write_run(transaction: &WriteTransaction, run: &RunId, tail: &RunTail) -> Result<(), redb::Error> {
    transaction.open_table(RUNS)?.insert(run.as_str(), encode::<RunRow>(&tail.row).as_slice())?;
    transaction.open_table(WATCHES)?.insert(run.as_str(), encode(&tail.watch).as_slice())?;
    if let Some(left_out) = &tail.left_out {
        transaction.open_table(LEFT_OUT)?.insert(run.as_str(), encode(left_out).as_slice())?;
    }
    Ok(())
}

fn write_chunk(transaction: &WriteTransaction, key: ChunkKey, columns: &Columns) -> Result<(), redb::Error> {
    let Some(bucket) = columns.bucket() else { return Ok(()) };
    transaction.open_table(POINTS)?.insert(key, columns.encode().as_slice())?;
    transaction.open_table(BUCKETS)?.insert(key, encode(&columns.buckets()).as_slice())?;
    transaction.open_table(INDEX)?.insert(key, encode(&bucket).as_slice())?;
    Ok(())
}

fn write_summary(
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

/// A series of which the end goes away.
struct Cut {
    key: SeriesKey,
    /// Chunks that begin after the step, or reach beyond it: they are taken away.
    old: Vec<ChunkKey>,
    /// What remains of the chunk that reached beyond the step.
    kept: Option<(ChunkKey, Columns)>,
    moved: Vec<(ChunkKey, Columns)>,
    /// `None`: nothing remains.
    remains: Option<SeriesSummary>,
    gone: SeriesSummary,
}

impl Cut {
    /// What `key` loses after `step`, to be series `id`.
    fn of(
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

    fn write(&self, transaction: &WriteTransaction, run: &RunId, branch: u32) -> Result<(), redb::Error> {
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
fn move_rest(transaction: &WriteTransaction, run: &RunId, branch: u32, step: u64) -> Result<(), redb::Error> {
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
