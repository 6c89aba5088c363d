//! `coord mirror`: copies the numbers of a run to other tools; with `--follow`, until the run has ended.

mod targets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_common::quoted;
use lockstep_core::state::StatusKind;
use lockstep_core::view::RunView;
use lockstep_export::{
    Dataset, Item, Mlflow, MlflowServer, Run, Sink, Status, TableFile, TableFormat, TensorBoard, Wandb,
};
use lockstep_rpc::{MediaReport, ReportBlock};
use lockstep_store::BlobStore;
use lockstep_tracking::{Unfit, metrics_of};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::args::MirrorArguments;
use crate::connection::{Client, Patience, lost};
use crate::terminal::{Exit, Failure, Output};
use targets::Targets;

/// How long blocks are collected before they are written together: a tool takes many points as fast as few.
const TOGETHER: Duration = Duration::from_millis(500);
/// Most blocks that are written together.
const MOST_BLOCKS: usize = 256;

pub(crate) async fn mirror(arguments: MirrorArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.address.addr).await?;
    let view = client.run(&arguments.run).await?;
    let mut targets = targets(&arguments, view.row.id.as_str())?;
    targets.begin(&run_of(&view)).await?;
    let mut mirror =
        Mirror { targets, blobs: Blobs::new(client.clone())?, last: BTreeMap::new(), reached: 0, unfit: false };
    let id = view.row.id.as_str();
    mirror.all(&mut client, id, arguments.follow).await?;
    let view = client.run(id).await?;
    mirror.end(&client, id, view.row.step).await?;
    mirror.targets.finish(&run_of(&view)).await?;
    out.line(&format!("wrote run {} ({}) to all targets", view.row.id, view.row.name));
    Ok(Exit::Done)
}

fn targets(arguments: &MirrorArguments, run: &str) -> Result<Targets, Failure> {
    let place = |path: &PathBuf| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok();
    if let (Some(csv), Some(parquet)) = (&arguments.csv, &arguments.parquet)
        && place(csv) == place(parquet)
    {
        let words = format!("`--csv` and `--parquet` are one file, `{}`: pass two paths", parquet.display());
        return Err(Failure::new(Exit::Usage, words));
    }
    let mut targets = Targets::default();
    if let Some(dir) = &arguments.tensorboard {
        targets.add(format!("--tensorboard {}", dir.display()), Ok(Sink::TensorBoard(TensorBoard::new(dir.join(run)))));
    }
    if let Some(uri) = &arguments.mlflow {
        let server = MlflowServer { uri: uri.clone(), token: std::env::var("MLFLOW_TRACKING_TOKEN").ok() };
        // The name leaves out the address, which may contain a password. Errors have the address without it.
        targets.add("--mlflow".to_owned(), Mlflow::new(server, &arguments.experiment).map(Sink::Mlflow));
    }
    if let Some(dir) = &arguments.wandb {
        let wandb = Wandb::new(&arguments.python, dir, &arguments.experiment);
        targets.add(format!("--wandb {}", dir.display()), Ok(Sink::Wandb(wandb)));
    }
    let tables = [("--csv", &arguments.csv, TableFormat::Csv), ("--parquet", &arguments.parquet, TableFormat::Parquet)];
    for (flag, path, format) in tables {
        if let Some(path) = path {
            targets.add(format!("{flag} {}", path.display()), Ok(Sink::Table(TableFile::new(path, format))));
        }
    }
    if targets.is_empty() {
        let words = "no target: pass `--tensorboard`, `--mlflow`, `--wandb`, `--csv` or `--parquet`";
        return Err(Failure::new(Exit::Usage, words));
    }
    Ok(targets)
}

/// The run as other tools describe it: parameters, tags and datasets.
fn run_of(view: &RunView) -> Run {
    let row = &view.row;
    let mut parameters = BTreeMap::new();
    if let Ok(job) = serde_json::from_str(&view.job) {
        flatten("", &job, &mut parameters);
    }
    let mut tags = BTreeMap::new();
    if let Some(code) = &view.code {
        tags.insert("code.commit".to_owned(), code.commit.clone());
        tags.insert("code.dirty".to_owned(), code.dirty.to_string());
        tags.extend(code.branch.clone().map(|branch| ("code.branch".to_owned(), branch)));
        tags.extend(code.remote.clone().map(|remote| ("code.remote".to_owned(), remote)));
    }
    tags.extend(view.data.iter().map(|file| (format!("data.{}", file.path), file.digest.to_string())));
    tags.insert("job_digest".to_owned(), view.job_digest.to_string());
    tags.extend(row.final_state_digest.map(|digest| ("final_state".to_owned(), digest.to_string())));
    tags.extend(row.parent.map(|parent| ("parent_checkpoint".to_owned(), parent.to_string())));
    tags.extend(row.tags.iter().map(|tag| (format!("tag.{tag}"), "true".to_owned())));
    if !view.note.is_empty() {
        tags.insert("note".to_owned(), view.note.clone());
    }
    let dataset = |file: &lockstep_common::manifest::DataFile| Dataset {
        name: file.path.clone(),
        digest: file.digest.to_string(),
        bytes: file.bytes,
    };
    Run {
        id: row.id.to_string(),
        name: row.name.clone(),
        status: match row.status {
            StatusKind::Finished => Status::Finished,
            StatusKind::Failed | StatusKind::Unsaved => Status::Failed,
            StatusKind::Cancelled => Status::Cancelled,
            StatusKind::Queued | StatusKind::Starting | StatusKind::Running => Status::Running,
        },
        started_at_ms: row.started_at_ms,
        ended_at_ms: row.ended_at_ms,
        parameters,
        tags,
        datasets: view.data.iter().map(dataset).collect(),
    }
}

/// Adds the values of a JSON object by dotted key: `{"a": {"b": 1}}` adds `a.b` with `1`.
fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(into.insert(prefix.to_owned(), text.clone())),
        other => drop(into.insert(prefix.to_owned(), other.to_string())),
    }
}

struct Mirror {
    targets: Targets,
    blobs: Blobs,
    /// The last written step of each process, by which a rollback is noticed.
    last: BTreeMap<u32, u64>,
    /// The highest written step.
    reached: u64,
    /// Whether the warning about left-out reports was printed.
    unfit: bool,
}

impl Mirror {
    /// Writes all reports of `run`. After a lost connection it starts again: the tools skip steps that they have.
    async fn all(&mut self, client: &mut Client, run: &str, follow: bool) -> Result<(), Failure> {
        let mut patience = Patience::default();
        loop {
            match self.read(client, run, follow).await? {
                Ok(()) => return Ok(()),
                Err(status) if lost(&status) && patience.more(client.address(), &status).await => self.last.clear(),
                Err(status) => return Err(client.failure(status)),
            }
        }
    }

    async fn read(
        &mut self,
        client: &mut Client,
        run: &str,
        follow: bool,
    ) -> Result<Result<(), tonic::Status>, Failure> {
        let mut reports = match client.reports(run, follow).await {
            Ok(reports) => reports,
            Err(status) => return Ok(Err(status)),
        };
        let (mut blocks, mut since) = (Vec::new(), Instant::now());
        loop {
            let next = tokio::select! {
                biased;
                next = reports.next() => Some(next),
                () = tokio::time::sleep_until(since + TOGETHER), if !blocks.is_empty() => None,
            };
            match next {
                Some(Ok(Some(block))) => {
                    if blocks.is_empty() {
                        since = Instant::now();
                    }
                    blocks.push(block);
                    if blocks.len() < MOST_BLOCKS {
                        continue;
                    }
                }
                Some(Ok(None)) => {
                    self.write(std::mem::take(&mut blocks)).await?;
                    return Ok(Ok(()));
                }
                Some(Err(status)) => return Ok(Err(status)),
                None => {}
            }
            self.write(std::mem::take(&mut blocks)).await?;
        }
    }

    async fn write(&mut self, blocks: Vec<ReportBlock>) -> Result<(), Failure> {
        for block in blocks {
            // Steps ascend by one. A step that does not is the first after a rollback.
            if let (Some(first), Some(last)) = (block.steps.first(), block.steps.last()) {
                let before = self.last.insert(block.process, last.step);
                if before.is_some_and(|before| first.step <= before) {
                    self.put(&[Item::Rewind { step: first.step.saturating_sub(1) }]).await?;
                }
                self.reached = self.reached.max(last.step);
            }
            let brought = metrics_of(block);
            self.name_unfit(brought.unfit.first());
            let points = brought.points.iter().map(|(key, points)| Item::Points { key, points });
            let histograms = brought.histograms.iter().map(|(key, histogram)| Item::Histogram { key, histogram });
            let items: Vec<Item<'_>> = points.chain(histograms).collect();
            self.put(&items).await?;
            for media in &brought.media {
                self.media(media).await?;
            }
        }
        Ok(())
    }

    /// Rolls the tools back if the run was rolled back and ended before its next step, which no report shows. It ended at `step`, or later.
    async fn end(&mut self, client: &Client, run: &str, step: u64) -> Result<(), Failure> {
        if self.reached <= step {
            return Ok(());
        }
        let failed = |status| client.failure(status);
        let mut reports = client.reports(run, false).await.map_err(failed)?;
        let mut counted = 0;
        while let Some(block) = reports.next().await.map_err(failed)? {
            counted = block.steps.last().map_or(counted, |last| last.step.max(counted));
        }
        if counted < self.reached {
            self.put(&[Item::Rewind { step: counted }]).await?;
        }
        Ok(())
    }

    /// Prints a warning about the first report that is left out.
    fn name_unfit(&mut self, first: Option<&Unfit>) {
        let Some(Unfit { name, step, why, .. }) = first else { return };
        if !std::mem::replace(&mut self.unfit, true) {
            let name = quoted(name);
            Output::note(&format!("warning: `{name}` of step {step} is not written, nor are others like it: {why}"));
        }
    }

    async fn media(&mut self, media: &MediaReport) -> Result<(), Failure> {
        let MediaReport { name, step, at_ms, kind, text, blob, file_name } = media;
        let (step, at_ms) = (*step, *at_ms);
        let path = match blob {
            Some(blob) => Some(self.blobs.get(blob.clone()).await?),
            None => None,
        };
        let bytes = || path.as_deref().map(std::fs::read).transpose().map(Option::unwrap_or_default);
        let unread = |error: std::io::Error| Failure::new(Exit::Local, format!("cannot read a fetched blob: {error}"));
        match kind.as_str() {
            "image" => {
                let png = bytes().map_err(unread)?;
                let Some((width, height)) = size_of_png(&png) else { return Ok(()) };
                self.put(&[Item::Image { name, step, at_ms, png: &png, width, height }]).await
            }
            "text" => {
                let long = bytes().map_err(unread)?;
                let long = String::from_utf8_lossy(&long);
                let text = if long.is_empty() { text.as_str() } else { &long };
                self.put(&[Item::Text { name, step, at_ms, text }]).await
            }
            _ => {
                let Some(path) = &path else { return Ok(()) };
                let name = format!("{name}/step-{step}/{file_name}");
                self.put(&[Item::Artifact { name: &name, path }]).await
            }
        }
    }

    async fn put(&mut self, items: &[Item<'_>]) -> Result<(), Failure> {
        self.targets.write(items).await
    }
}

/// Width and height in pixels, from the header.
fn size_of_png(png: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(*png.get(at..)?.first_chunk::<4>()?));
    Some((number(16)?, number(20)?))
}

/// Downloads blobs of the run into a temporary directory.
struct Blobs {
    client: Client,
    dir: TempDir,
}

impl Blobs {
    fn new(client: Client) -> Result<Self, Failure> {
        let dir = tempfile::tempdir();
        let dir =
            dir.map_err(|error| Failure::new(Exit::Local, format!("cannot create a temporary directory: {error}")))?;
        Ok(Self { client, dir })
    }

    async fn get(&self, blob: lockstep_rpc::BlobRef) -> Result<PathBuf, Failure> {
        let piece = lockstep_common::manifest::Piece::try_from(blob);
        let piece = piece.map_err(|_| Failure::new(Exit::Unreachable, "a report names a blob without a digest"))?;
        let dir: &Path = self.dir.path();
        self.client.fetch(std::slice::from_ref(&piece), dir).await?;
        let store = BlobStore::open(dir).map_err(|error| Failure::caused(Exit::Local, &error))?;
        Ok(store.local_path(&piece.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_flat_to_other_tools() {
        let job = serde_json::json!({"name": "x", "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "eval": null});
        let mut flat = BTreeMap::new();
        flatten("", &job, &mut flat);
        let expected = [("name", "x"), ("optimizer.betas", "[0.9,0.99]"), ("optimizer.lr", "0.1")];
        assert_eq!(flat, expected.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
    }
}
