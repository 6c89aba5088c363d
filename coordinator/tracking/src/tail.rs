//! What is in memory of a run that reports: the points that are not in a full chunk yet, and what was not written.

use std::collections::BTreeMap;

use lockstep_alarms::{Alarm, Watch};
use lockstep_common::RunId;
use lockstep_common::series::{Histogram, Point, SeriesKey};

use crate::column::{CHUNK, Columns};
use crate::database::{ChunkKey, Media, RunRow, SeriesSummary};
use crate::points::Unfit;
use crate::quota::{LeftOut, Quota, Used, leave_out};

/// Points whose memory, and whose rows in a write, a series takes by itself.
pub(crate) const SERIES_POINTS: usize = 64;

/// A run's.
#[derive(Debug)]
pub(crate) struct RunTail {
    pub(crate) row: RunRow,
    pub(crate) watch: Watch,
    pub(crate) series: BTreeMap<SeriesKey, SeriesTail>,
    /// All series of the run, in memory or not.
    pub(crate) known_series: u64,
    /// Not written yet, as the next.
    pub(crate) histograms: Vec<(SeriesKey, Histogram)>,
    pub(crate) media: Vec<Media>,
    /// All of its media, written or not.
    pub(crate) used: Used,
    pub(crate) left_out: Option<LeftOut>,
    /// Whether it is news that something was left out.
    pub(crate) left_out_now: bool,
    /// Whether anything was not written.
    pub(crate) dirty: bool,
    /// Flushes in a row that had nothing of it to write.
    pub(crate) at_rest: u32,
}

impl RunTail {
    pub(crate) fn new(row: RunRow, watch: Watch, (used, known_series): (Used, u64), left_out: Option<LeftOut>) -> Self {
        Self {
            row,
            watch,
            series: BTreeMap::new(),
            known_series,
            histograms: Vec::new(),
            media: Vec::new(),
            used,
            left_out,
            left_out_now: false,
            dirty: false,
            at_rest: 0,
        }
    }

    /// Takes an image, a text or a file of `run`, if there is room for it.
    pub(crate) fn take_media(&mut self, run: &RunId, one: Media, quota: &Quota) {
        match self.used.take(&one, quota) {
            Ok(()) => self.media.push(one),
            Err(why) => {
                let Media { name, step, at_ms, .. } = one;
                self.leave_out(run, Unfit { name, step, at_ms, why });
            }
        }
    }

    /// Leaves a series of `run` out that begins with `first`.
    pub(crate) fn leave_out_series(&mut self, run: &RunId, key: &SeriesKey, first: &Point, why: String) {
        self.leave_out(run, Unfit { name: key.name.clone(), step: first.step, at_ms: first.at_ms, why });
    }

    /// Notes that something of `run` is left out.
    pub(crate) fn leave_out(&mut self, run: &RunId, Unfit { name, step, at_ms, why }: Unfit) {
        self.left_out_now |= leave_out(&mut self.left_out, run, (name, step, at_ms), why);
    }

    /// Alarms that stand.
    pub(crate) fn count_standing(&self) -> u64 {
        self.watch.count_standing() as u64 + u64::from(self.left_out.is_some())
    }

    /// All alarms, by the step that each began at.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        with_left_out(self.watch.alarms(), self.left_out.as_ref())
    }

    /// Points in memory; a series that is there counts as some.
    pub(crate) fn points(&self) -> usize {
        let of = |series: &SeriesTail| series.chunks().map(|(_, columns)| columns.len()).sum::<usize>();
        self.series.values().map(|series| SERIES_POINTS + of(series)).sum()
    }

    /// Everything was written.
    pub(crate) fn written(&mut self) {
        self.dirty = false;
        self.histograms.clear();
        self.media.clear();
        for series in self.series.values_mut() {
            series.full.clear();
            series.dirty = false;
        }
    }
}

/// The alarms of the numbers, and that of what was left out.
pub(crate) fn with_left_out(mut alarms: Vec<Alarm>, left_out: Option<&LeftOut>) -> Vec<Alarm> {
    if let Some(left_out) = left_out {
        alarms.push(left_out.alarm());
        alarms.sort_by_key(|alarm| alarm.since_step);
    }
    alarms
}

/// A series'.
#[derive(Clone, Debug)]
pub(crate) struct SeriesTail {
    pub(crate) summary: SeriesSummary,
    /// Full chunks that were not written: points before each, and it.
    full: Vec<(u64, Columns)>,
    open: Columns,
    pub(crate) dirty: bool,
}

impl SeriesTail {
    /// A series that goes on: `open` is its last chunk, if that is not full.
    pub(crate) fn new(summary: SeriesSummary, open: Columns) -> Self {
        Self { summary, full: Vec::new(), open, dirty: false }
    }

    /// A series without points.
    pub(crate) fn empty(id: u64) -> Self {
        let summary = SeriesSummary {
            id,
            count: 0,
            first_step: 0,
            last_step: 0,
            first_ms: 0,
            last_ms: 0,
            last: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        };
        Self::new(summary, Columns::default())
    }

    pub(crate) fn push(&mut self, point: &Point) {
        let summary = &mut self.summary;
        // Whoever reports the same step twice, or goes back, must not break the order that is searched by.
        let point = Point { step: point.step.max(summary.last_step), ..*point };
        if summary.count == 0 {
            (summary.first_step, summary.first_ms) = (point.step, point.at_ms);
        }
        summary.count += 1;
        (summary.last_step, summary.last_ms, summary.last) = (point.step, point.at_ms, point.value);
        if point.value.is_finite() {
            summary.min = summary.min.min(point.value);
            summary.max = summary.max.max(point.value);
        }
        self.open.push(&point);
        self.dirty = true;
        if self.open.len() >= CHUNK {
            let columns = std::mem::take(&mut self.open);
            self.full.push((self.summary.count - columns.len() as u64, columns));
        }
    }

    /// All chunks in memory, with the key of each.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (ChunkKey, &Columns)> {
        let open = (self.summary.count - self.open.len() as u64, &self.open);
        let all = self.full.iter().map(|(before, columns)| (*before, columns)).chain([open]);
        all.filter_map(|(before, columns)| Some(((self.summary.id, *columns.steps.first()?, before), columns)))
    }
}
