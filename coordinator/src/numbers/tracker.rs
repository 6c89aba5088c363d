//! The ingest thread: reads report blocks as they arrive, and writes the metrics of runs to the tracking database.
//!
//! Nothing waits for it. A block that cannot be ingested is skipped and logged. If the tracking database cannot be written, the thread
//! logs the error and ends, and `Answers` report it to clients. Training, the record and checkpoints continue.

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

/// Time between two flushes. After a crash, the reports since the last flush are ingested again.
const FLUSH_EVERY: Duration = Duration::from_secs(3);

/// Number of changes that a slow listener may lag behind. After that it gets a notice that it missed some.
const CHANGES: usize = 1024;

/// Broadcasts the ids of runs with new metrics.
pub(crate) type Changes = broadcast::Sender<RunId>;

/// The error after which metrics are no longer stored; unset while they are.
pub(crate) type Stop = Arc<OnceLock<String>>;

/// The ingest thread, and readers of its database.
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
    /// Opens `tracking.redb` in `dir`, and starts the thread. It ingests all reports that are new since the last start, then those of
    /// `news`, and sends each alarm to `notifier`. It ends when `news` is closed.
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
                Err(panic) => format!("panic: {}", words_of(panic.as_ref())),
            };
            error!(error = reason, "metrics of runs are no longer stored until the next start; training continues");
            // Cannot be set already: this thread is the only one, and ends here.
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

    /// A reader of the tracking database.
    pub(crate) fn tracking(&self) -> Tracking {
        self.tracking.clone()
    }

    /// The error with which the thread has ended, once it has.
    pub(crate) fn stopped(&self) -> Stop {
        Arc::clone(&self.stopped)
    }

    /// The sender of changes; subscribe to it to receive them.
    pub(crate) fn changes(&self) -> Changes {
        self.changes.clone()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The thread ends because the store has closed its news. A panic was logged when it happened.
            let _ = thread.join();
        }
    }
}

/// Ingests until `news` is closed. A damaged database is replaced once; if the new one is damaged, too, the disk is faulty.
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

/// State of the ingest thread.
struct Ingest<'a> {
    writer: Writer,
    notifier: &'a Notifier,
    flushed: Instant,
    /// Log entries of a run that are skipped, because ingesting them panicked.
    left_out: BTreeSet<(RunId, u64)>,
    /// Runs with a logged warning about a skipped text or medium. Each run is warned about once.
    shortened: BTreeSet<RunId>,
}

impl Ingest<'_> {
    /// Ingests the reports that are stored already, and then new ones as they arrive.
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

    /// Ingests the blocks and rewinds of `run` since the last call.
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
                        error!(%run, index, why, "cannot ingest the metrics of a report: skipping them");
                        self.left_out.insert((run.clone(), index));
                        // Half of the event may be in memory. Drop it, and ingest again from the last flush.
                        self.writer.forget(run);
                        (after, more) = (self.writer.cursor(run)?, true);
                        break;
                    }
                }
            }
            for alarm in self.writer.take_raised(run) {
                self.notifier.notify(run, &alarm);
            }
            // Bounds the memory of unwritten metrics while a long backlog is ingested.
            self.flush_now_and_then()?;
        }
        // An error means that nobody is subscribed.
        let _ = changes.send(run.clone());
        Ok(())
    }

    /// Decodes the block of `process`. A block that cannot be decoded becomes `Event::Unsound`.
    fn decode(&mut self, run: &RunId, index: u64, process: u32, bytes: &[u8]) -> Event {
        match decode_block(process, bytes) {
            Ok(DecodedBlock { block, left_out }) => {
                if let Some(words) = left_out
                    && self.shortened.insert(run.clone())
                {
                    warn!(%run, "{words}; further ones of this run are not logged");
                }
                Event::Block(Box::new(block))
            }
            Err(unsound) => {
                warn!(%run, index, process, %unsound, "cannot decode a report: skipping its metrics");
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
