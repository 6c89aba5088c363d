//! A run on a server of MLflow.
//!
//! The server is the only state: a run is found again by a tag, and for each metric the server knows the last step, from which
//! writing goes on. Metrics there can only be added to, so steps that a run made again after it went back stay as they first
//! were.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Content, MlflowServer, Tries};
use super::names::{
    DATASET_DIGEST_LENGTH, DATASET_NAME_LENGTH, ENTITIES_PER_CALL, METRICS_PER_CALL, PARAMETER_LENGTH, TAG_LENGTH, cut,
    number, valid_name, valid_path,
};
use crate::run::name_of;
use crate::{ExportError, Item, Run, Status};

/// By which a run is found again.
const ID_TAG: &str = "lockstep.run";

/// Tags of a run that MLflow shows under names of its own.
const KNOWN_TAGS: [(&str, &str); 2] = [("code.commit", "mlflow.source.git.commit"), ("note", "mlflow.note.content")];

/// A run on a server of MLflow. Its database makes infinite values the greatest finite ones, and -0 a 0.
///
/// A series of a process is `name/process`; texts and images are artifacts, as `text/name/step.txt`. A name that MLflow does not take is
/// changed, and then ends in a digest.
#[derive(Debug)]
pub struct Mlflow {
    client: Client,
    experiment: String,
    place: Place,
    /// By metric, the greatest step that the server has.
    last: HashMap<String, u64>,
}

/// Where the run is.
#[derive(Debug, Default)]
struct Place {
    run_id: String,
    /// Where its artifacts go, whatever passes them on.
    artifact_uri: String,
}

#[derive(Deserialize)]
struct RunAnswer {
    run: FoundRun,
}

#[derive(Deserialize)]
struct SearchAnswer {
    #[serde(default)]
    runs: Vec<FoundRun>,
}

#[derive(Deserialize)]
struct FoundRun {
    info: RunInfo,
    #[serde(default)]
    data: RunData,
}

#[derive(Deserialize)]
struct RunInfo {
    run_id: String,
    artifact_uri: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RunData {
    metrics: Vec<MetricAnswer>,
    params: Vec<ParameterAnswer>,
}

#[derive(Deserialize)]
struct MetricAnswer {
    key: String,
    #[serde(default)]
    step: i64,
}

#[derive(Deserialize)]
struct ParameterAnswer {
    key: String,
}

#[derive(Deserialize)]
struct ExperimentAnswer {
    experiment: ExperimentId,
}

#[derive(Deserialize)]
struct ExperimentId {
    experiment_id: String,
}

impl Mlflow {
    /// The experiment `experiment` of `server`; it is created if there is none.
    pub fn new(server: MlflowServer, experiment: impl Into<String>) -> Result<Self, ExportError> {
        let client = Client::new(server)?;
        Ok(Self { client, experiment: experiment.into(), place: Place::default(), last: HashMap::new() })
    }

    pub(crate) async fn begin(&mut self, run: &Run) -> Result<(), ExportError> {
        let mut tries = Tries::default();
        let found = loop {
            match self.find_or_create(run).await {
                Err(error) if tries.again(&error).await => {}
                done => break done?,
            }
        };
        self.place = Place { run_id: found.info.run_id, artifact_uri: found.info.artifact_uri };
        // Whoever else wrote steps below 0: they are before all of ours.
        let steps =
            found.data.metrics.into_iter().filter_map(|metric| Some((metric.key, metric.step.try_into().ok()?)));
        self.last = steps.collect();
        let known: BTreeSet<String> = found.data.params.into_iter().map(|parameter| parameter.key).collect();
        self.log_parameters(run, &known).await?;
        self.log_tags(run).await?;
        self.log_datasets(run).await?;
        self.update(run).await
    }

    pub(crate) async fn write(&mut self, items: &[Item<'_>]) -> Result<(), ExportError> {
        let mut metrics = Vec::new();
        for item in items {
            match *item {
                Item::Points { key, points } => {
                    let name = valid_name(&name_of(key));
                    let written = self.last.get(&name);
                    let new = written.map_or(0, |&last| points.partition_point(|point| point.step <= last));
                    for point in &points[new..] {
                        let (timestamp, value) = (point.at_ms, number(point.value));
                        metrics.push(json!({"key": name, "value": value, "timestamp": timestamp, "step": point.step}));
                        if metrics.len() == METRICS_PER_CALL {
                            self.log_batch("metrics", std::mem::take(&mut metrics)).await?;
                        }
                    }
                    if let Some(point) = points[new..].last() {
                        self.last.insert(name, point.step);
                    }
                }
                Item::Text { name, step, text, .. } => {
                    self.upload(&format!("text/{name}/{step}.txt"), Content::Bytes(text.as_bytes())).await?;
                }
                Item::Image { name, step, png, .. } => {
                    self.upload(&format!("images/{name}/{step}.png"), Content::Bytes(png)).await?;
                }
                Item::Artifact { name, path } => self.upload(name, Content::File(path)).await?,
                Item::Histogram { .. } | Item::Rewind { .. } => {}
            }
        }
        if metrics.is_empty() { Ok(()) } else { self.log_batch("metrics", metrics).await }
    }

    pub(crate) async fn finish(&mut self, run: &Run) -> Result<(), ExportError> {
        self.log_tags(run).await?;
        self.update(run).await
    }

    /// Repeated as a whole: a run whose creation was not answered is found the next time.
    async fn find_or_create(&self, run: &Run) -> Result<FoundRun, ExportError> {
        let experiment = self.experiment().await?;
        let filter = format!("tags.`{ID_TAG}` = '{}'", run.id);
        let search = json!({"experiment_ids": [experiment], "filter": filter, "max_results": 1});
        let found: SearchAnswer = self.client.post_once("runs/search", &search).await?;
        if let Some(run) = found.runs.into_iter().next() {
            return Ok(run);
        }
        let tags = json!([{"key": ID_TAG, "value": run.id}]);
        let (name, start) = (&run.name, run.started_at_ms);
        let create = json!({"experiment_id": experiment, "run_name": name, "start_time": start, "tags": tags});
        let created: RunAnswer = self.client.post_once("runs/create", &create).await?;
        Ok(created.run)
    }

    async fn experiment(&self) -> Result<String, ExportError> {
        let name = &*self.experiment;
        let found = self.client.get_once("experiments/get-by-name", &[("experiment_name", name)]).await;
        let found: Result<ExperimentAnswer, ExportError> = found;
        match found {
            Err(ExportError::Refused { status: 404, .. }) => {
                let created: ExperimentId = self.client.post_once("experiments/create", &json!({"name": name})).await?;
                Ok(created.experiment_id)
            }
            found => Ok(found?.experiment.experiment_id),
        }
    }

    /// Those that the server does not know: it refuses to change one.
    async fn log_parameters(&self, run: &Run, known: &BTreeSet<String>) -> Result<(), ExportError> {
        let parameters = run.parameters.iter().map(|(name, value)| (valid_name(name), cut(value, PARAMETER_LENGTH)));
        self.log_texts("params", parameters.filter(|(name, _)| !known.contains(name)).collect()).await
    }

    async fn log_tags(&self, run: &Run) -> Result<(), ExportError> {
        let known = |(ours, theirs)| Some((theirs, run.tags.get::<str>(ours)?));
        let tags = run.tags.iter().map(|(name, value)| (&**name, value));
        let tags = tags.chain(KNOWN_TAGS.into_iter().filter_map(known));
        self.log_texts("tags", tags.map(|(name, value)| (valid_name(name), cut(value, TAG_LENGTH))).collect()).await
    }

    /// A digest is cut to what MLflow takes of one; it is whole in the source.
    async fn log_datasets(&self, run: &Run) -> Result<(), ExportError> {
        if run.datasets.is_empty() {
            return Ok(());
        }
        let dataset = |data: &crate::Dataset| {
            let digest: String = data.digest.chars().take(DATASET_DIGEST_LENGTH).collect();
            let source = json!({"path": data.name, "digest": data.digest}).to_string();
            let profile = json!({"bytes": data.bytes}).to_string();
            let name = cut(&data.name, DATASET_NAME_LENGTH);
            json!({
                "dataset": {"name": name, "digest": digest, "source_type": "lockstep", "source": source, "profile": profile},
                "tags": [{"key": "mlflow.data.context", "value": "training"}],
            })
        };
        let datasets: Vec<Value> = run.datasets.iter().map(dataset).collect();
        let body = json!({"run_id": self.place.run_id, "datasets": datasets});
        self.client.post::<Value>("runs/log-inputs", &body).await.map(drop)
    }

    async fn update(&self, run: &Run) -> Result<(), ExportError> {
        let status = match run.status {
            Status::Running => "RUNNING",
            Status::Finished => "FINISHED",
            Status::Failed => "FAILED",
            Status::Cancelled => "KILLED",
        };
        let (run_id, end) = (&self.place.run_id, run.ended_at_ms);
        let body = json!({"run_id": run_id, "run_name": run.name, "status": status, "end_time": end});
        self.client.post::<Value>("runs/update", &body).await.map(drop)
    }

    /// Of one name once, or the server refuses all of them.
    async fn log_texts(&self, kind: &str, texts: BTreeMap<String, String>) -> Result<(), ExportError> {
        let texts: Vec<Value> = texts.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        for batch in texts.chunks(ENTITIES_PER_CALL) {
            self.log_batch(kind, batch.to_vec()).await?;
        }
        Ok(())
    }

    async fn log_batch(&self, kind: &str, batch: Vec<Value>) -> Result<(), ExportError> {
        let body = json!({"run_id": self.place.run_id, kind: batch});
        self.client.post::<Value>("runs/log-batch", &body).await.map(drop)
    }

    async fn upload(&self, name: &str, content: Content<'_>) -> Result<(), ExportError> {
        let uri = &self.place.artifact_uri;
        let no_proxy = || ExportError::NoArtifactProxy { uri: uri.clone() };
        let root = uri.strip_prefix("mlflow-artifacts:").ok_or_else(no_proxy)?;
        // `//host` may stand before the path.
        let root = root.strip_prefix("//").map_or(root, |rest| rest.split_once('/').map_or("", |(_, path)| path));
        self.client.upload(&format!("{}/{}", root.trim_matches('/'), valid_path(name)), content).await
    }
}
