//! The thread that keeps runs' numbers: reads the report blocks as they come, and feeds the tracking store.
//!
//! Nothing waits for it, and nothing breaks with it: a block whose numbers cannot be taken is left out by name, and if its database
//! cannot be written, it says so (`Answers` do to whoever asks) and ends. Training, the record and the checkpoints go on.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lockstep_common::{RunId, chain};
use lockstep_rpc::{DecodedBlock, decode_block};
use lockstep_tracking::{Event, Quota, Tracking, TrackingError, Writer};
use tokio::sync::broadcast;
use tracing::{error, warn};

use crate::numbers::hooks::Notifier;
use crate::store::{BlockReader, Entry, News, StoreError};

/// Between two flushes: as much has to be read again after a crash.
const FLUSH_EVERY: Duration = Duration::from_secs(3);

/// Changes that a slow listener may be behind; then it is told that it missed some.
const CHANGES: usize = 1024;

/// Tells which runs have new numbers.
pub(crate) type Changes = broadcast::Sender<RunId>;

/// Why the numbers of runs are no longer kept; empty as long as they are.
pub(crate) type Stop = Arc<OnceLock<String>>;

/// The thread, and how to read what it keeps.
#[derive(Debug)]
pub(crate) struct Tracker {
    tracking: Tracking,
    changes: Changes,
    stopped: Stop,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Tracking(#[from] TrackingError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Tracker {
    /// Opens the store of numbers in `dir`, catches up with the reports, and goes on with what is new, telling `notifier`
    /// of each alarm. It ends when `news` are closed.
    pub(crate) fn start(
        dir: &Path,
        quota: Quota,
        reader: BlockReader,
        news: News,
        notifier: Notifier,
    ) -> Result<Self, TrackingError> {
        let (writer, tracking) = Writer::open(&dir.join("tracking.redb"))?;
        let writer = writer.with_quota(quota);
        let (changes, _) = broadcast::channel(CHANGES);
        let told = changes.clone();
        let stopped = Stop::default();
        let why = Arc::clone(&stopped);
        let work = move || {
            let kept = catch_unwind(AssertUnwindSafe(|| ingest(writer, &reader, &news, &told, &notifier)));
            let reason = match kept {
                Ok(Ok(())) => return,
                Ok(Err(stopped)) => chain(&stopped),
                Err(panic) => format!("a panic: {}", words_of(panic.as_ref())),
            };
            error!(error = reason, "numbers of runs are no longer kept; training goes on");
            // There is one thread, which ends once.
            let _ = why.set(reason);
        };
        let thread = thread::Builder::new().name("tracker".to_owned()).spawn(work);
        let thread = thread.map_err(|source| TrackingError::Database {
            action: "open",
            path: dir.to_owned(),
            source: Box::new(redb::StorageError::Io(source).into()),
        })?;
        Ok(Self { tracking, changes, stopped, thread: Some(thread) })
    }

    /// Reads the numbers.
    pub(crate) fn tracking(&self) -> Tracking {
        self.tracking.clone()
    }

    /// Why it has ended before the coordinator, once it has.
    pub(crate) fn stopped(&self) -> Stop {
        Arc::clone(&self.stopped)
    }

    /// Where changes are told.
    pub(crate) fn changes(&self) -> Changes {
        self.changes.clone()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The store closes its news before; a panic in there was printed there.
            let _ = thread.join();
        }
    }
}

/// Keeps the numbers until there are no more. A database that is damaged is replaced, once: if that does not help, the disk is to
/// blame.
fn ingest(
    writer: Writer,
    reader: &BlockReader,
    news: &News,
    changes: &Changes,
    notifier: &Notifier,
) -> Result<(), Stopped> {
    let (left_out, shortened) = (BTreeSet::new(), BTreeSet::new());
    let mut ingest = Ingest { writer, notifier, flushed: Instant::now(), left_out, shortened };
    match ingest.run(reader, news, changes) {
        Err(Stopped::Tracking(error)) if error.is_damage() => {
            ingest.writer.begin_anew(&error)?;
            ingest.run(reader, news, changes)
        }
        kept => kept,
    }
}

/// The writer, and when it last wrote.
struct Ingest<'a> {
    writer: Writer,
    notifier: &'a Notifier,
    flushed: Instant,
    /// Events that could not be taken.
    left_out: BTreeSet<(RunId, u64)>,
    /// Runs of which it was said that a text is too long.
    shortened: BTreeSet<RunId>,
}

impl Ingest<'_> {
    /// Takes what the reports hold, and then what is new.
    fn run(&mut self, reader: &BlockReader, news: &News, changes: &Changes) -> Result<(), Stopped> {
        for run in reader.runs()? {
            self.catch_up(reader, &run, changes)?;
        }
        self.writer.flush()?;
        while let Some(runs) = news.take(FLUSH_EVERY) {
            for run in runs {
                self.catch_up(reader, &run, changes)?;
            }
            self.writer.check()?;
            self.flush_now_and_then()?;
        }
        Ok(self.writer.flush()?)
    }

    /// Takes what the log has brought of `run` since the last time.
    fn catch_up(&mut self, reader: &BlockReader, run: &RunId, changes: &Changes) -> Result<(), Stopped> {
        let (mut after, mut more) = (self.writer.cursor(run)?, true);
        while more {
            let entries;
            (entries, more) = reader.entries(run, after)?;
            for (index, entry) in entries {
                after = index;
                if self.left_out.contains(&(run.clone(), index)) {
                    continue;
                }
                let event = match entry {
                    Entry::Rewind(step) => Event::Rewind(step),
                    Entry::Block(process, bytes) => self.decode(run, index, process, &bytes),
                };
                match catch_unwind(AssertUnwindSafe(|| self.writer.take(run, index, event))) {
                    Ok(taken) => taken?,
                    Err(panic) => {
                        let why = words_of(panic.as_ref());
                        error!(%run, index, why, "the numbers of a report cannot be taken: they are left out");
                        self.left_out.insert((run.clone(), index));
                        // Half of it may be in memory: what is on the disk is sound, and the rest is read again.
                        self.writer.forget(run);
                        (after, more) = (self.writer.cursor(run)?, true);
                        break;
                    }
                }
            }
            for alarm in self.writer.take_raised(run) {
                self.notifier.notify(run, &alarm);
            }
            // What is not written is in memory: after an outage there is much to catch up with.
            self.flush_now_and_then()?;
        }
        // Nobody may be listening.
        let _ = changes.send(run.clone());
        Ok(())
    }

    /// What the block of `process` holds, or that it is not sound.
    fn decode(&mut self, run: &RunId, index: u64, process: u32, bytes: &[u8]) -> Event {
        match decode_block(process, bytes) {
            Ok(DecodedBlock { block, left_out }) => {
                if let Some(words) = left_out
                    && self.shortened.insert(run.clone())
                {
                    warn!(%run, "{words}; more of this run are not named here");
                }
                Event::Block(Box::new(block))
            }
            Err(unsound) => {
                warn!(%run, index, process, %unsound, "a report is not sound: its numbers are left out");
                Event::Unsound(unsound)
            }
        }
    }

    fn flush_now_and_then(&mut self) -> Result<(), TrackingError> {
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.writer.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}
