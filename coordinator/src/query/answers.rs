//! Answers questions with JSON documents: the same for gRPC clients and for the page.

use std::sync::Arc;

use lockstep_common::job::{Autocast, JobSpec};
use lockstep_common::{Digest, RunId};
use lockstep_core::ClusterState;
use lockstep_core::view::{CheckpointView, RunRow, RunView};
use lockstep_rpc::query_request::What;
use lockstep_rpc::tracked_query::What as TrackedWhat;
use lockstep_rpc::{RunsQuery, TrackedQuery};
use lockstep_tracking::{Alarm, Facts, Tracking, TrackingError};
use tonic::Status;

use crate::checkpoints::Manifests;
use crate::node::{CallError, Handle};
use crate::numbers::mismatch;
use crate::numbers::saves;
use crate::numbers::tracker::{Stop, Tracker};
use crate::query::tracked;
use crate::query::{Runs, documents};

/// Answers questions. Clones share all sources.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    handle: Handle,
    runs: Runs,
    manifests: Manifests,
    tracking: Tracking,
    /// The error after which the tracker ended.
    stopped: Stop,
    about: Arc<str>,
}

impl Answers {
    /// Answers from the state behind `handle`, its `runs`, the `manifests` of its checkpoints and the metrics of `tracker`. `about` is the
    /// document about the coordinator itself.
    pub(crate) fn new(handle: Handle, runs: Runs, manifests: Manifests, tracker: &Tracker, about: &str) -> Self {
        Self { handle, runs, manifests, tracking: tracker.tracking(), stopped: tracker.stopped(), about: about.into() }
    }

    /// The error after which metrics are no longer stored; `None` while they are.
    pub(crate) fn numbers_stopped(&self) -> Option<&str> {
        self.stopped.get().map(String::as_str)
    }

    /// The document about the coordinator itself.
    fn about(&self) -> String {
        let (Some(why), Ok(serde_json::Value::Object(mut about))) =
            (self.numbers_stopped(), serde_json::from_str(&self.about))
        else {
            return self.about.to_string();
        };
        about.insert("numbers_not_kept".to_owned(), why.into());
        documents::encode(&about)
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    pub(crate) fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// All alarms of `run`: from its metrics, from replicas that differed, and from checkpoints that failed.
    async fn alarms(&self, run: &RunId) -> Result<Vec<Alarm>, Status> {
        let view = self.runs.view(run.as_str()).await?;
        let parent = view.row.parent;
        let begun = move |state: &ClusterState| parent.and_then(|id| Some((state.checkpoint(&id).ok()?.1.step, id)));
        let parent = self.handle.read(begun).await?;
        let (tracking, run) = (self.tracking.clone(), run.clone());
        let known = tokio::task::spawn_blocking(move || tracking.alarms(&run)).await;
        let mut alarms = known
            .map_err(|_| Status::internal("a query of metrics panicked; see the coordinator's log"))?
            .map_err(failed)?;
        let facts = facts(&view, parent);
        for alarm in &mut alarms {
            alarm.advise(&facts);
        }
        alarms.extend(view.corruptions.iter().map(mismatch::alarm).chain(saves::alarms(&view)));
        Ok(alarms)
    }

    /// Adds the number of active alarms from the metrics to the alarm count of each row.
    pub(crate) fn add_alarms(&self, rows: &mut [RunRow]) {
        for row in rows {
            *row.alarms.get_or_insert(0) += self.tracking.standing_alarms_of(&row.id);
        }
    }

    /// The document that answers `what`.
    ///
    /// # Errors
    /// `NotFound` if a name matches nothing; `DataLoss` if metrics, archive or manifest cannot be read; `Unavailable` at shutdown.
    pub(crate) async fn answer(&self, what: What) -> Result<String, Status> {
        let handle = &self.handle;
        Ok(match what {
            What::Runs(RunsQuery { limit: Some(limit), before, .. }) => {
                let mut page = self.runs.page(before, limit as usize).await?;
                self.add_alarms(&mut page.runs);
                documents::encode_page(&page)
            }
            What::Runs(RunsQuery { recent, .. }) => {
                let mut rows = if recent { self.runs.recent().await? } else { self.runs.rows().await? };
                self.add_alarms(&mut rows);
                documents::encode_rows(&rows)
            }
            What::Run(prefix) => {
                let mut view = self.runs.view(&prefix).await?;
                self.add_alarms(std::slice::from_mut(&mut view.row));
                documents::encode_run(&view)
            }
            What::Nodes(_) => documents::encode(&handle.read(ClusterState::node_views).await?),
            What::Checkpoints(prefix) if prefix.is_empty() => {
                documents::encode(&handle.read(ClusterState::checkpoint_views).await?)
            }
            What::Checkpoints(prefix) => {
                let views = handle.read(move |state| state.find_run(&prefix).map(CheckpointView::of_run)).await?;
                documents::encode(&views.map_err(CallError::from)?)
            }
            What::Manifest(prefix) => {
                let (_, bytes) = self.manifests.find(&prefix).await?;
                String::from_utf8(bytes).map_err(|_| Status::data_loss("the manifest is not valid UTF-8"))?
            }
            What::Coordinator(_) => self.about(),
            What::Tracked(TrackedQuery { run, what }) => {
                let what = what.ok_or_else(|| Status::invalid_argument("`tracked.what` is empty"))?;
                let run = handle.find_run(&run).await?;
                if let TrackedWhat::Alarms(_) = what {
                    return Ok(serde_json::json!(self.alarms(&run).await?).to_string());
                }
                let tracking = self.tracking.clone();
                let answered =
                    tokio::task::spawn_blocking(move || Ok(tracked::answer(&tracking, &run, what)?.to_string()));
                answered
                    .await
                    .map_err(|_| Status::internal("a query of metrics panicked; see the coordinator's log"))?
                    .map_err(failed)?
            }
        })
    }
}

/// The facts that the advice of alarms depends on. `parent` is the checkpoint that the run was resumed from, with its step.
fn facts(view: &RunView, parent: Option<(u64, Digest)>) -> Facts {
    let is_bf16 = JobSpec::from_canonical(view.job.as_bytes()).is_ok_and(|job| job.numerics.autocast == Autocast::Bf16);
    let mut checkpoints: Vec<_> = view.checkpoints.iter().map(|made| (made.step, made.id.short())).collect();
    checkpoints.extend(parent.map(|(step, id)| (step, id.short())));
    checkpoints.sort_unstable();
    Facts { checkpoints, is_bf16 }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that `map_err` needs")]
fn failed(error: TrackingError) -> Status {
    Status::data_loss(lockstep_common::chain(&error))
}
