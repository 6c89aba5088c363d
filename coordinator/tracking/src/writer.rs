//! The one that writes: takes blocks and rewinds in the log's order, and flushes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lockstep_alarms::{Alarm, Watch};
use lockstep_common::{RunId, chain};
use lockstep_rpc::{ReportBlock, UnsoundBlock};
use redb::WriteTransaction;
use tracing::warn;

use self::append::append;
use self::rewind::{Cut, move_rest};
use self::rows::{write_run, write_tail};
use crate::database::{Branch, Database, Snapshot};
use crate::error::TrackingError;
use crate::file::{aside, set_aside};
use crate::points::{BlockMetrics, metrics_of, metrics_without};
use crate::query::{Shared, Tracking};
use crate::quota::{LeftOut, Quota};
use crate::tail::{RunTail, SERIES_POINTS};

mod append;
mod rewind;
mod rows;

/// Points in memory, of all runs, above which those of runs at rest are let go: 24 bytes each.
const MOST_POINTS: usize = 4 << 20;

/// After so many flushes without a new point, a run leaves memory; its next report reads it from the database again.
const FLUSHES_AT_REST: u32 = 20;

/// Runs at rest that stay in memory until then, those that came to rest last: many short runs must not take more than a few long ones.
const RUNS_AT_REST: usize = 64;

/// Points that are not written yet, above which they are: what is in memory is bounded however fast they come.
const MOST_UNWRITTEN: usize = 1 << 20;

/// What happened to a run.
#[derive(Debug)]
pub enum Event {
    /// A process reported. Boxed: it is large, and rewinds are small.
    Block(Box<ReportBlock>),
    /// A process reported what is not taken: it is named, like all that is left out.
    Unsound(UnsoundBlock),
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
            Event::Block(block) => self.take_metrics(run, index, metrics_of(*block))?,
            Event::Unsound(block) => self.take_metrics(run, index, metrics_without(block))?,
            Event::Rewind(step) => {
                self.flush()?;
                self.rewind(run, index, step)?;
            }
        }
        Ok(())
    }

    fn take_metrics(&mut self, run: &RunId, index: u64, metrics: BlockMetrics) -> Result<(), TrackingError> {
        self.unwritten += metrics.points.values().map(|points| SERIES_POINTS + points.len()).sum::<usize>();
        let last_id = &mut self.last_id;
        let snapshot = self.shared.database().snapshot()?;
        let mut tails = self.shared.tails_mut();
        let tail = load(&mut tails, &snapshot, run)?;
        append(tail, &snapshot, run, metrics, last_id, &self.quota)?;
        tail.row.cursor = index;
        tail.row.standing = tail.count_standing();
        self.shared.note_standing(run, tail.row.standing);
        drop(tails);
        if self.unwritten > MOST_UNWRITTEN {
            self.flush()?;
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
        for tail in tails.values_mut() {
            tail.at_rest = if tail.dirty { 0 } else { tail.at_rest + 1 };
            tail.written();
        }
        // A run that has ended, or waits, is read again if something is asked of it.
        tails.retain(|_, tail| tail.at_rest < FLUSHES_AT_REST);
        let mut at_rest: Vec<(u32, RunId)> =
            tails.iter().filter(|(_, tail)| tail.at_rest > 0).map(|(run, tail)| (tail.at_rest, run.clone())).collect();
        at_rest.sort_unstable();
        for (_, run) in at_rest.iter().skip(RUNS_AT_REST) {
            tails.remove(run);
        }
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

#[cfg(test)]
mod tests {
    use lockstep_rpc::Series;

    use super::*;

    fn block(step: u64) -> Event {
        let series = Series { name: "loss".into(), steps: vec![step], at_ms: vec![1], values: vec![0.5], part: None };
        Event::Block(Box::new(ReportBlock { series: vec![series], ..ReportBlock::default() }))
    }

    #[test]
    fn of_many_runs_at_rest_the_last_ones_stay_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
        let run = |number: usize| format!("{number:010}").parse::<RunId>().unwrap();
        for number in 0..3 * RUNS_AT_REST {
            writer.take(&run(number), 1, block(1)).unwrap();
            if number % RUNS_AT_REST == RUNS_AT_REST - 1 {
                writer.flush().unwrap();
            }
        }
        // The last to report were not at rest.
        assert_eq!(writer.shared.tails().len(), 2 * RUNS_AT_REST);
        assert!(!writer.shared.tails().contains_key(&run(0)) && writer.shared.tails().contains_key(&run(RUNS_AT_REST)));
        assert_eq!(tracking.series(&run(0), 0).unwrap().len(), 1);
    }

    #[test]
    fn a_run_at_rest_is_let_go_and_read_again_when_it_reports() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
        let [rests, reports] = ["aaaaaaaaaa", "bbbbbbbbbb"].map(|id| id.parse::<RunId>().unwrap());
        writer.take(&rests, 1, block(1)).unwrap();
        for index in 2..=u64::from(FLUSHES_AT_REST) + 2 {
            assert!(writer.shared.tails().contains_key(&rests), "flush {index}");
            writer.take(&reports, index, block(index)).unwrap();
            writer.flush().unwrap();
        }
        assert_eq!(writer.shared.tails().keys().collect::<Vec<_>>(), [&reports]);
        assert_eq!(writer.cursor(&rests).unwrap(), 1);
        let points =
            |run: &RunId| tracking.series(run, 0).unwrap().into_values().map(|series| series.count).sum::<u64>();
        assert_eq!(points(&rests), 1);
        writer.take(&rests, 99, block(2)).unwrap();
        writer.flush().unwrap();
        assert_eq!(points(&rests), 2);
    }
}
