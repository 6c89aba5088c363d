//! A run for Weights & Biases: its own package writes it, in offline mode, fed by a script of ours.
//!
//! There a step is taken once, with all that belongs to it, and steps only grow. So all is gathered until the run is finished.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::process::{Child, ChildStdin, Command};

use crate::run::{histogram_name_of, name_of};
use crate::table::Rows;
use crate::{ExportError, Item, Run, Status};

/// The first lines of a script: what lies in the current directory is no part of Python. For a Python before 3.11, which does not
/// know [`SAFE_PATH`].
macro_rules! not_from_here {
    () => {
        "import sys\nsys.path[:] = [path for path in sys.path if path]\n"
    };
}

const SCRIPT: &str = concat!(not_from_here!(), include_str!("../python/wandb_export.py"));

/// Whether the package is there.
const LOOK: &str =
    concat!(not_from_here!(), "import importlib.util\nsys.exit(importlib.util.find_spec('wandb') is None)",);

/// Keeps the current directory out of where Python looks for modules, here and in whatever the package starts.
const SAFE_PATH: (&str, &str) = ("PYTHONSAFEPATH", "1");

/// Bars of a histogram: the page draws no more.
const BARS: usize = 64;

/// Characters of the package's last words that a message repeats.
const MESSAGE_LENGTH: usize = 1000;

/// An offline run, which `wandb sync` sends to a server. It replaces what an earlier export of the same run left in the
/// directory.
#[derive(Debug)]
pub struct Wandb {
    python: PathBuf,
    dir: PathBuf,
    project: String,
    rows: Rows,
    /// What is no number, by step.
    others: BTreeMap<u64, Row>,
    artifacts: BTreeMap<String, PathBuf>,
}

/// All that a step has.
#[derive(Debug, Default, Serialize)]
struct Row {
    step: u64,
    at_ms: u64,
    /// As JSON has them, or as a word that Python's `float` reads.
    values: BTreeMap<String, Value>,
    /// Counts and edges.
    histograms: BTreeMap<String, (Vec<u64>, Vec<f64>)>,
    texts: BTreeMap<String, String>,
    /// In base 64.
    images: BTreeMap<String, String>,
}

impl Wandb {
    /// An offline run in `dir`, under `wandb`, by the package of the interpreter `python`.
    pub fn new(python: impl Into<PathBuf>, dir: impl Into<PathBuf>, project: impl Into<String>) -> Self {
        let (python, dir, project) = (python.into(), dir.into(), project.into());
        Self { python, dir, project, rows: Rows::default(), others: BTreeMap::new(), artifacts: BTreeMap::new() }
    }

    /// Looks whether the package is there, so that no run is gathered in vain.
    pub(crate) async fn begin(&mut self) -> Result<(), ExportError> {
        let status = self.run(LOOK).stdin(Stdio::null()).status().await.map_err(|source| self.no_python(source))?;
        if status.success() { Ok(()) } else { Err(ExportError::NoWandb { python: self.python.clone() }) }
    }

    pub(crate) fn write(&mut self, items: &[Item<'_>]) {
        for item in items {
            self.rows.take(item);
            match *item {
                Item::Points { .. } => {}
                Item::Histogram { key, histogram } => {
                    let (edges, counts) = histogram.bars(BARS);
                    if !counts.is_empty() {
                        let row = self.row(histogram.step, histogram.at_ms);
                        row.histograms.insert(histogram_name_of(key), (counts, edges));
                    }
                }
                Item::Text { name, step, at_ms, text } => {
                    self.row(step, at_ms).texts.insert(name.to_owned(), text.to_owned());
                }
                Item::Image { name, step, at_ms, png, .. } => {
                    self.row(step, at_ms).images.insert(name.to_owned(), BASE64_STANDARD.encode(png));
                }
                Item::Artifact { name, path } => drop(self.artifacts.insert(name.to_owned(), path.to_owned())),
                Item::Rewind { step } => self.others.retain(|&other, _| other <= step),
            }
        }
    }

    pub(crate) async fn finish(&mut self, run: &Run) -> Result<(), ExportError> {
        self.rows.sort();
        let mut command = self.run(SCRIPT);
        command.env("WANDB_MODE", "offline").env("WANDB_SILENT", "true");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| self.no_python(source))?;
        let stdin = child.stdin.take().expect("it is piped");
        let (sent, output) = tokio::join!(self.send(run, stdin), ended(child));
        let output = output.map_err(|source| self.no_python(source))?;
        if output.status.success() && sent.is_ok() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let hidden = said.chars().count().saturating_sub(MESSAGE_LENGTH);
        let message = if said.is_empty() { output.status.to_string() } else { said.chars().skip(hidden).collect() };
        Err(ExportError::Wandb { python: self.python.clone(), message })
    }

    /// The interpreter with `script`. The current directory may be that of a stranger's code.
    fn run(&self, script: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-c", script]).env(SAFE_PATH.0, SAFE_PATH.1);
        command
    }

    fn row(&mut self, step: u64, at_ms: u64) -> &mut Row {
        let entry = self.others.entry(step).or_insert_with(|| Row { step, ..Row::default() });
        entry.at_ms = entry.at_ms.max(at_ms);
        entry
    }

    /// One line of JSON for the run, for each step, and for the end. Fails where the script is gone: it has said why.
    async fn send(&mut self, run: &Run, stdin: ChildStdin) -> io::Result<()> {
        let mut stdin = BufWriter::with_capacity(1 << 20, stdin);
        let datasets: BTreeMap<_, _> = run.datasets.iter().map(|data| (&data.name, &data.digest)).collect();
        line(
            &mut stdin,
            &json!({
                "id": run.id, "name": run.name, "project": self.project, "dir": self.dir, "parameters": run.parameters,
                "tags": run.tags, "datasets": datasets,
            }),
        )
        .await?;
        let mut series: Vec<_> = self.rows.series().map(|(key, points)| (name_of(key), points)).collect();
        loop {
            let next = series.iter().filter_map(|(_, points)| points.first().map(|point| point.step)).min();
            let other = self.others.first_key_value().map(|(&step, _)| step);
            let Some(step) = next.into_iter().chain(other).min() else { break };
            let mut row = match other {
                Some(other) if other == step => self.others.remove(&step).unwrap_or_default(),
                _ => Row { step, ..Row::default() },
            };
            for (name, points) in &mut series {
                if let Some((point, rest)) = points.split_first().filter(|(point, _)| point.step == step) {
                    row.values.insert(name.clone(), number(point.value));
                    row.at_ms = row.at_ms.max(point.at_ms);
                    *points = rest;
                }
            }
            line(&mut stdin, &row).await?;
        }
        let status = match run.status {
            Status::Running => "running",
            Status::Finished => "finished",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        };
        line(&mut stdin, &json!({"status": status, "artifacts": self.artifacts})).await?;
        stdin.shutdown().await
    }

    fn no_python(&self, source: io::Error) -> ExportError {
        ExportError::NoPython { python: self.python.clone(), source }
    }
}

async fn ended(child: Child) -> io::Result<Output> {
    child.wait_with_output().await
}

async fn line(stdin: &mut BufWriter<ChildStdin>, line: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    stdin.write_all(&bytes).await
}

fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}
