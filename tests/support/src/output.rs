//! The output of a process, read on threads line by line, and stored.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Error,
}

/// The lines of both streams, in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    lines: Vec<(Stream, String)>,
    /// Number of streams that have not ended.
    open: usize,
}

impl Kept {
    /// Reads `stream` on a thread until it ends; calls `hear` with each line as it arrives, without line feed.
    pub(crate) fn read(
        self: &Arc<Self>,
        stream: Stream,
        source: impl Read + Send + 'static,
        mut hear: impl FnMut(&str) + Send + 'static,
    ) {
        self.written().open += 1;
        let kept = Arc::clone(self);
        thread::spawn(move || {
            let (mut source, mut bytes) = (BufReader::new(source), Vec::new());
            while source.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
                let line = String::from_utf8_lossy(&bytes).into_owned();
                bytes.clear();
                hear(without_end(&line));
                kept.written().lines.push((stream, line));
                kept.changed.notify_all();
            }
            kept.written().open -= 1;
            kept.changed.notify_all();
        });
    }

    /// The text so far, of one stream or of both (`None`).
    pub(crate) fn text(&self, of: Option<Stream>) -> String {
        let written = self.written();
        let wanted = written.lines.iter().filter(|(stream, _)| of.is_none_or(|of| of == *stream));
        wanted.map(|(_, line)| line.as_str()).collect()
    }

    /// The first value that `find` returns for a line; `None` if both streams end or `deadline` passes before.
    pub(crate) fn find<T>(&self, deadline: Instant, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut seen = 0;
        loop {
            // `find` runs without the lock, because it may be slow and may panic.
            let (new, is_over) = {
                let is_news = |written: &Written| written.lines.len() > seen || written.open == 0;
                let written = self.wait(deadline, is_news);
                (written.lines[seen..].to_vec(), written.lines.len() == seen)
            };
            seen += new.len();
            let found = new.iter().find_map(|(_, line)| find(without_end(line)));
            if found.is_some() || is_over || Instant::now() > deadline {
                return found;
            }
        }
    }

    /// Waits until both streams have ended; false if `deadline` passes before.
    pub(crate) fn is_over(&self, deadline: Instant) -> bool {
        self.wait(deadline, |written| written.open == 0).open == 0
    }

    fn wait(&self, deadline: Instant, until: impl Fn(&Written) -> bool) -> MutexGuard<'_, Written> {
        let (left, written) = (deadline.saturating_duration_since(Instant::now()), self.written());
        let waited = self.changed.wait_timeout_while(written, left, |written| !until(written));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_end(line: &str) -> &str {
    line.strip_suffix('\n').unwrap_or(line)
}
