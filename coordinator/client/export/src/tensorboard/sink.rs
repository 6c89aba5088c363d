//! A run's directory of event files, and what has been written there.
//!
//! The files are the only state. Whoever begins reads them back, cuts off what a crash tore, and writes on in a new file, whose
//! name sorts after theirs: TensorBoard reads files in that order, and none again that it is through with.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use lockstep_common::series::Point;
use lockstep_host::plain::Dir;
use prost::Message as _;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;

use super::event::{Event, FILE_VERSION, SESSION_START, SessionLog, Value};
use super::hparams;
use super::record::{Records, append};
use crate::run::{histogram_name_of, name_of};
use crate::{ExportError, Item, Run};

/// How TensorBoard knows an event file.
const PREFIX: &str = "events.out.tfevents.";

/// How this crate knows its own.
const SUFFIX: &str = ".lockstep";

/// Digits of the number between them. TensorBoard sorts by the text of a name, so that all have as many.
const DIGITS: usize = 10;

/// No number of a file is greater: one more has as many digits.
const GREATEST: u64 = 9_999_999_998;

/// Where a run's tags and data are, as a text.
const ABOUT_TAG: &str = "lockstep/run";

/// Bytes to gather before they go to the file.
const BUFFER: usize = 1 << 20;

/// A run's directory of event files. Scalars are `f32` there: TensorBoard's own server knows no others.
///
/// A series of a process is `name/process`, a distribution is `name/histogram`. Images and histograms are as
/// `torch.utils.tensorboard` writes them.
#[derive(Debug)]
pub struct TensorBoard {
    dir: PathBuf,
    /// None until there is something to write.
    file: Option<File>,
    /// Not yet in the file.
    events: Vec<u8>,
    written: Written,
}

/// What the files hold.
#[derive(Debug, Default)]
struct Written {
    /// By tag, the greatest step.
    last: HashMap<String, u64>,
    /// In the name of the newest file.
    seconds: u64,
}

impl TensorBoard {
    /// A run's own directory: its name is that of the run in TensorBoard, which is started on a directory above.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), file: None, events: Vec::new(), written: Written::default() }
    }

    pub(crate) async fn begin(&mut self, run: &Run) -> Result<(), ExportError> {
        let dir = self.dir.clone();
        (self.file, self.events) = (None, Vec::new());
        self.written = spawn_blocking(move || read_back(&dir)).await.expect("reading back does not panic")?;
        let at_ms = run.started_at_ms.unwrap_or_else(now_ms);
        self.put(0, at_ms, hparams::start(run));
        self.put(0, at_ms, Value::text(ABOUT_TAG, &about(run)));
        self.flush().await
    }

    pub(crate) async fn write(&mut self, items: &[Item<'_>]) -> Result<(), ExportError> {
        for item in items {
            match *item {
                Item::Points { key, points } => self.points(name_of(key), points).await?,
                Item::Histogram { key, histogram } => {
                    self.put(histogram.step, histogram.at_ms, Value::histogram(&histogram_name_of(key), histogram));
                }
                Item::Text { name, step, at_ms, text } => self.put(step, at_ms, Value::text(name, text)),
                Item::Image { name, step, at_ms, png, width, height } => {
                    self.put(step, at_ms, Value::image(name, png, width, height));
                }
                Item::Artifact { .. } => {}
                Item::Rewind { step } => self.rewind(step),
            }
            if self.events.len() > BUFFER {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    pub(crate) async fn finish(&mut self, run: &Run) -> Result<(), ExportError> {
        let at_ms = run.ended_at_ms.unwrap_or_else(now_ms);
        let step = self.written.last.values().copied().max().unwrap_or(0);
        self.put(step, at_ms, Value::text(ABOUT_TAG, &about(run)));
        if let Some(end) = hparams::end(run) {
            self.put(0, at_ms, end);
        }
        self.flush().await
    }

    /// Those of `points` that are not in the files. One event for all, changed from point to point, saves copies of the tag.
    async fn points(&mut self, tag: String, points: &[Point]) -> Result<(), ExportError> {
        let written = self.written.last.get(&tag);
        let new = written.map_or(0, |&last| points.partition_point(|point| point.step <= last));
        let Some(last) = points[new..].last().map(|point| point.step) else { return Ok(()) };
        self.written.last.insert(tag.clone(), last);
        let mut event = Event::of(0, 0, Value { tag, ..Value::default() });
        for point in &points[new..] {
            event.wall_time = point.at_ms as f64 / 1e3;
            event.step = point.step as i64;
            if let Some(summary) = &mut event.summary {
                summary.value[0].scalar = Some(point.value as f32);
            }
            append(&mut self.events, &event);
            if self.events.len() > BUFFER {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn put(&mut self, step: u64, at_ms: u64, value: Value) {
        let last = self.written.last.get(&value.tag);
        if last.is_none_or(|&last| last < step) {
            self.written.last.insert(value.tag.clone(), step);
            append(&mut self.events, &Event::of(step, at_ms, value));
        }
    }

    fn rewind(&mut self, step: u64) {
        if self.written.rewind(step) {
            let session_log = Some(SessionLog { status: SESSION_START });
            append(&mut self.events, &Event { session_log, ..Event::at(step + 1, now_ms()) });
        }
    }

    /// Hands the events to the system, where a running TensorBoard sees them.
    async fn flush(&mut self) -> Result<(), ExportError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let seconds = if self.file.is_some() { self.written.seconds } else { self.written.next_seconds() };
        let path = self.dir.join(format!("{PREFIX}{seconds:0DIGITS$}{SUFFIX}"));
        if self.file.is_none() {
            let mut first = Vec::new();
            append(&mut first, &Event { file_version: Some(FILE_VERSION.to_owned()), ..Event::at(0, now_ms()) });
            self.events.splice(..0, first);
            let file = File::options().write(true).create_new(true).open(&path).await;
            self.file = Some(file.map_err(ExportError::io("create", &path))?);
            self.written.seconds = seconds;
        }
        let file = self.file.as_mut().expect("it was opened above");
        let write = async {
            file.write_all(&self.events).await?;
            file.flush().await
        };
        write.await.map_err(ExportError::io("write", &path))?;
        self.events.clear();
        Ok(())
    }
}

impl Written {
    fn next_seconds(&self) -> u64 {
        // A clock that is that far ahead still gives a name that fits.
        (now_ms() / 1000).clamp(self.seconds + 1, GREATEST + 1)
    }

    /// Whether there was something beyond `step`.
    fn rewind(&mut self, step: u64) -> bool {
        let mut is_beyond = false;
        for last in self.last.values_mut().filter(|last| **last > step) {
            *last = step;
            is_beyond = true;
        }
        is_beyond
    }

    fn take(&mut self, event: &Event) {
        if event.session_log.is_some_and(|log| log.status == SESSION_START) {
            self.rewind((event.step as u64).saturating_sub(1));
        }
        for value in event.summary.iter().flat_map(|summary| &summary.value) {
            self.last.insert(value.tag.clone(), event.step as u64);
        }
    }
}

/// What the event files of `dir` hold. Torn ends are cut off them, and so is the end of a run that goes on after all: TensorBoard
/// keeps the first end that it sees. A file that does not begin as one of this crate's stays as it is.
fn read_back(dir: &Path) -> Result<Written, ExportError> {
    fs::create_dir_all(dir).map_err(ExportError::io("create", dir))?;
    let place = open(dir).map_err(ExportError::io("open", dir))?;
    let mut files = Vec::new();
    for name in place.names().map_err(ExportError::io("list", dir))? {
        if let Some(number) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)) {
            let seconds = seconds(number).map_err(ExportError::io("write after", &dir.join(&name)))?;
            files.extend(seconds.map(|seconds| (seconds, name)));
        }
    }
    files.sort();
    let mut written = Written::default();
    for (seconds, name) in files {
        written.seconds = seconds;
        let path = dir.join(&name);
        let file = place.change(&name).map_err(ExportError::io("open", &path))?;
        let mut records = Records::new(&file);
        let mut end = 0;
        while let Some(message) = records.next().map_err(ExportError::io("read", &path))? {
            let Ok(event) = Event::decode(message) else { break };
            let is_first = end == 0;
            if (is_first && event.file_version.as_deref() != Some(FILE_VERSION)) || ends_run(&event) {
                break;
            }
            written.take(&event);
            end = records.end;
        }
        let length = file.metadata().map_err(ExportError::io("read", &path))?.len();
        // Without a first record it is no event file: its name alone is no reason to empty it.
        if end > 0 && end < length {
            file.set_len(end).map_err(ExportError::io("cut", &path))?;
        }
    }
    Ok(written)
}

/// The directory of a run, which is no link: it lies in that of all runs.
fn open(dir: &Path) -> io::Result<Dir> {
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => Dir::open(parent)?.dir(name),
        _ => Dir::open(dir),
    }
}

/// The number in a file's name. None: it is not one of this crate's.
fn seconds(number: &str) -> io::Result<Option<u64>> {
    if number.len() < DIGITS || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match number.parse() {
        Ok(seconds) if number.len() == DIGITS && seconds <= GREATEST => Ok(Some(seconds)),
        _ => Err(io::Error::other(format!("the number in its name is greater than {GREATEST}: move the file away"))),
    }
}

fn ends_run(event: &Event) -> bool {
    let values = event.summary.iter().flat_map(|summary| &summary.value);
    values.into_iter().any(|value| value.tag == hparams::END_TAG)
}

/// A run's tags and data as tables of Markdown.
fn about(run: &Run) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', "<br>");
    let mut text = format!("| {} | `{}` |\n| --- | --- |\n", cell(&run.name), run.id);
    for (key, value) in &run.tags {
        let _ = writeln!(text, "| {} | {} |", cell(key), cell(value));
    }
    for data in &run.datasets {
        let _ = writeln!(text, "| data `{}` | `{}`, {} bytes |", cell(&data.name), data.digest, data.bytes);
    }
    text
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}
