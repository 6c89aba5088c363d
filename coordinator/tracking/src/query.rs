//! What is asked of the numbers: lists, curves for a width of pixels, distributions, alarms.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lockstep_alarms::{Alarm, Watch};
use lockstep_common::RunId;
use lockstep_common::series::{Histogram, Point, SeriesKey};
use lockstep_rpc::ModelReport;
use prost::Message as _;

use crate::bucket::{Bucket, group};
use crate::column::{BUCKET, CHUNK, Columns};
use crate::database::{Branch, ChunkKey, Database, Media, SeriesSummary, Snapshot};
use crate::error::TrackingError;
use crate::tail::{RunTail, with_left_out};

/// What writer and readers share. The writer alone changes it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Another one, once this was set aside. Who looks at the tails, too, takes them first.
    database: RwLock<Arc<Database>>,
    tails: RwLock<BTreeMap<RunId, RunTail>>,
    /// Of each run, how many of its alarms stand.
    standing: RwLock<BTreeMap<RunId, u64>>,
}

impl Shared {
    pub(crate) fn new(database: Database) -> Result<Self, TrackingError> {
        let database = Arc::new(database);
        let standing = RwLock::new(database.snapshot()?.standing()?);
        Ok(Self { database: RwLock::new(database), tails: RwLock::default(), standing })
    }

    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on with an empty `database`.
    pub(crate) fn begin_anew(&self, database: Database) {
        let mut tails = self.tails_mut();
        tails.clear();
        self.standing.write().unwrap_or_else(PoisonError::into_inner).clear();
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(database);
    }

    pub(crate) fn note_standing(&self, run: &RunId, alarms: u64) {
        let mut standing = self.standing.write().unwrap_or_else(PoisonError::into_inner);
        if standing.get(run) != Some(&alarms) {
            standing.insert(run.clone(), alarms);
        }
    }

    pub(crate) fn tails(&self) -> RwLockReadGuard<'_, BTreeMap<RunId, RunTail>> {
        self.tails.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tails_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<RunId, RunTail>> {
        self.tails.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The run itself, or one of its branches.
    pub branch: u32,
    /// Steps from here.
    pub from: u64,
    /// To here.
    pub to: u64,
    /// About as many points as there is room for.
    pub pixels: usize,
}

/// A curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Whether each point is one of the series; else it stands for several.
    pub exact: bool,
    /// The last step of each.
    pub steps: Vec<u64>,
    /// Its time.
    pub at_ms: Vec<u64>,
    /// The mean of its finite values; no number if there is none. If exact, and where the curve ends, the value.
    pub values: Vec<f64>,
    /// The least of each, unless exact.
    pub min: Vec<f64>,
    /// The greatest.
    pub max: Vec<f64>,
}

/// Reads numbers, beside the writer. Cheap to clone. All of it reads the disk: call it where that is allowed.
#[derive(Clone, Debug)]
pub struct Tracking(Arc<Shared>);

impl Tracking {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// What `read` finds. Numbers that cannot be, because their rows were changed, may panic wherever they are looked at.
    fn guarded<T>(&self, read: impl FnOnce() -> Result<T, TrackingError>) -> Result<T, TrackingError> {
        self.0.database().guarded(read)
    }

    /// A moment: what is written, and what `look` sees of that which is not.
    fn see<T>(&self, run: &RunId, look: impl FnOnce(Option<&RunTail>) -> T) -> Result<(Snapshot, T), TrackingError> {
        let tails = self.0.tails();
        Ok((self.0.database().snapshot()?, look(tails.get(run))))
    }

    /// All series of `branch`, by name and part.
    pub fn series(&self, run: &RunId, branch: u32) -> Result<BTreeMap<SeriesKey, SeriesSummary>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| {
                let series = tail.filter(|_| branch == 0).map(|tail| &tail.series);
                series
                    .into_iter()
                    .flatten()
                    .map(|(key, series)| (key.clone(), series.summary.clone()))
                    .collect::<Vec<_>>()
            })?;
            let mut all: BTreeMap<_, _> = snapshot.series(run, branch)?.into_iter().collect();
            all.extend(live);
            Ok(all)
        })
    }

    /// What the run left behind when it was rolled back.
    pub fn branches(&self, run: &RunId) -> Result<Vec<Branch>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| tail.map(|tail| tail.row.branches.clone()))?;
            Ok(match live {
                Some(branches) => branches,
                None => snapshot.run(run)?.unwrap_or_default().branches,
            })
        })
    }

    /// Values of telemetry that never arrived, because nobody took them in time.
    pub fn dropped(&self, run: &RunId) -> Result<u64, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| tail.map(|tail| tail.row.dropped))?;
            Ok(match live {
                Some(dropped) => dropped,
                None => snapshot.run(run)?.unwrap_or_default().dropped,
            })
        })
    }

    /// The curve of `key`; `None` if there is no such series.
    pub fn curve(&self, run: &RunId, key: &SeriesKey, query: &Query) -> Result<Option<Drawn>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| {
                let series = tail.filter(|_| query.branch == 0).and_then(|tail| tail.series.get(key));
                series.map(|series| {
                    let chunks = series.chunks().filter(|(_, columns)| overlaps(columns, query));
                    let chunks: Vec<(ChunkKey, Columns)> =
                        chunks.map(|(key, columns)| (key, columns.clone())).collect();
                    let before = series.chunks().next().map_or(series.summary.count, |(key, _)| key.2);
                    (series.summary.clone(), before, chunks)
                })
            })?;
            let (summary, before, live) = match live {
                Some(live) => live,
                None => match snapshot.one_series(run, query.branch, key)? {
                    Some(summary) => (summary, u64::MAX, Vec::new()),
                    None => return Ok(None),
                },
            };
            let mut stored = snapshot.index(summary.id, query.from, query.to)?;
            // The memory has a newer one of the last chunk.
            stored.retain(|(chunk, bucket)| chunk.2 < before && bucket.last_step >= query.from);
            let mut drawn = draw(&snapshot, &stored, &live, query)?;
            // Where a curve ends is its last value, not the mean of its last pixel.
            if let (Some(end), true) = (drawn.values.last_mut(), query.to >= summary.last_step) {
                *end = summary.last;
            }
            Ok(Some(drawn))
        })
    }

    /// Names of what there are distributions of.
    pub fn histogram_names(&self, run: &RunId) -> Result<Vec<String>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| {
                let histograms = tail.map(|tail| tail.histograms.iter().map(|(key, _)| key.name.clone()));
                histograms.into_iter().flatten().collect::<Vec<_>>()
            })?;
            let mut names = snapshot.histogram_names(run)?;
            names.extend(live);
            names.sort_unstable();
            names.dedup();
            Ok(names)
        })
    }

    /// The distributions of `name`, oldest first.
    pub fn histograms(&self, run: &RunId, name: &str) -> Result<Vec<Histogram>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| {
                let histograms = tail.into_iter().flat_map(|tail| &tail.histograms);
                let own = histograms.filter(|(key, _)| key.name == name).map(|(_, histogram)| histogram.clone());
                own.collect::<Vec<_>>()
            })?;
            let mut all = snapshot.histograms(run, 0, name)?;
            all.extend(live);
            Ok(all)
        })
    }

    /// Images, texts and files, oldest first.
    pub fn media(&self, run: &RunId) -> Result<Vec<Media>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| tail.map(|tail| tail.media.clone()))?;
            let mut all = snapshot.media(run)?;
            all.extend(live.unwrap_or_default());
            Ok(all)
        })
    }

    /// What is trained, if the run has said it.
    pub fn model(&self, run: &RunId) -> Result<Option<ModelReport>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| tail.map(|tail| tail.row.model.clone()))?;
            let bytes = match live {
                Some(bytes) => bytes,
                None => snapshot.run(run)?.unwrap_or_default().model,
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            let model = ModelReport::decode(bytes.as_slice());
            model.map(Some).map_err(|_| snapshot.damaged("a model cannot be read"))
        })
    }

    /// How many alarms of `run` stand.
    pub fn standing_alarms_of(&self, run: &RunId) -> u64 {
        self.0.standing.read().unwrap_or_else(PoisonError::into_inner).get(run).copied().unwrap_or(0)
    }

    /// All alarms, by the step that each began at.
    pub fn alarms(&self, run: &RunId) -> Result<Vec<Alarm>, TrackingError> {
        self.guarded(|| {
            let (snapshot, live) = self.see(run, |tail| tail.map(RunTail::alarms))?;
            if let Some(alarms) = live {
                return Ok(alarms);
            }
            let kept = snapshot.watch(run)?;
            let watch: Option<Watch> = kept.and_then(|bytes| postcard::from_bytes(&bytes).ok());
            let alarms = watch.map(|watch| watch.alarms()).unwrap_or_default();
            Ok(with_left_out(alarms, snapshot.left_out(run)?.as_ref()))
        })
    }
}

fn overlaps(columns: &Columns, query: &Query) -> bool {
    let reach = columns.steps.first().zip(columns.steps.last());
    reach.is_some_and(|(first, last)| *first <= query.to && *last >= query.from)
}

/// The curve of what is `stored` and what is in memory behind it, from the level that has enough for the pixels.
fn draw(
    snapshot: &Snapshot,
    stored: &[(ChunkKey, Bucket)],
    live: &[(ChunkKey, Columns)],
    query: &Query,
) -> Result<Drawn, TrackingError> {
    let within = |point: &Point| (query.from..=query.to).contains(&point.step);
    let in_memory: usize = live.iter().map(|(_, columns)| columns.len()).sum();
    let count = stored.iter().map(|(_, bucket)| bucket.count as usize).sum::<usize>() + in_memory;
    let points_of = || live.iter().flat_map(|(_, columns)| columns.points());
    // Twice the pixels cost no more to draw, and spare a short run its averages.
    if count / 2 <= query.pixels || count / BUCKET < query.pixels {
        let mut points = Vec::with_capacity(count);
        for (key, _) in stored {
            points.extend(snapshot.columns(*key)?.points());
        }
        points.extend(points_of());
        points.retain(within);
        if points.len() / 2 <= query.pixels {
            return Ok(exact(&points));
        }
        return Ok(columns(points.iter().map(Bucket::of).collect(), query));
    }
    let mut buckets = Vec::new();
    for (key, whole) in stored {
        if count / CHUNK >= query.pixels {
            buckets.push(*whole);
        } else {
            buckets.extend(snapshot.buckets(*key)?);
        }
    }
    // Of what is in memory there are no rows to read: it is added up here.
    buckets.extend(live.iter().flat_map(|(_, columns)| columns.buckets()));
    buckets.retain(|bucket| bucket.last_step >= query.from && bucket.first_step <= query.to);
    Ok(columns(buckets, query))
}

fn exact(points: &[Point]) -> Drawn {
    Drawn {
        exact: true,
        steps: points.iter().map(|point| point.step).collect(),
        at_ms: points.iter().map(|point| point.at_ms).collect(),
        values: points.iter().map(|point| point.value).collect(),
        ..Drawn::default()
    }
}

/// One point for each pixel that has any.
fn columns(buckets: Vec<Bucket>, query: &Query) -> Drawn {
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else { return Drawn::default() };
    let (from, to) = (first.last_step, last.last_step);
    let width = (to - from).div_ceil(query.pixels.max(1) as u64).max(1);
    let grouped = group(buckets.into_iter(), |bucket| (bucket.last_step - from) / width);
    Drawn {
        exact: false,
        steps: grouped.iter().map(|bucket| bucket.last_step).collect(),
        at_ms: grouped.iter().map(|bucket| bucket.last_ms).collect(),
        values: grouped.iter().map(Bucket::mean).collect(),
        min: grouped.iter().map(|bucket| bucket.min).collect(),
        max: grouped.iter().map(|bucket| bucket.max).collect(),
    }
}
