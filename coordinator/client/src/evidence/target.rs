//! The subject of `verify`, `diff`, `reproduce` and `lineage`: a run, or a checkpoint and its run.

use std::collections::BTreeMap;

use lockstep_common::Digest;
use lockstep_common::manifest::{Manifest, RecordPosition};
use lockstep_common::record::chain_start;
use lockstep_core::view::RunView;
use lockstep_rpc::query_request::What;

use crate::connection::Client;
use crate::evidence::comparison::Record;
use crate::terminal::{Exit, Failure};

/// A run, up to a checkpoint if one was named.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) view: RunView,
    /// Id and step of the named checkpoint; `None` if a run was named.
    pub(crate) checkpoint: Option<(Digest, u64)>,
    /// Start of the record: the checkpoint that the run was resumed from, or step 0.
    pub(crate) began: RecordPosition,
    /// Position of the record at the named checkpoint, or at the run's last one.
    pub(crate) stood: Option<RecordPosition>,
    pub(crate) numerics: BTreeMap<String, String>,
    pub(crate) environment: BTreeMap<String, String>,
}

impl Target {
    /// Finds the run with this id, unique prefix or name, or the checkpoint with this id or unique prefix.
    ///
    /// # Errors
    /// `NotFound` if there is neither, or a run and a checkpoint.
    pub(crate) async fn find(client: &Client, name: &str) -> Result<Self, Failure> {
        let (view, manifest) = match client.run(name).await {
            Ok(view) => {
                no_checkpoint(client, name, &view).await?;
                (view, None)
            }
            Err(failure) if failure.is_nothing() => {
                let manifest = manifest(client, name).await.map_err(|other| {
                    if !other.is_nothing() {
                        return other;
                    }
                    Failure::new(Exit::NotFound, format!("there is no run or checkpoint `{name}`"))
                        .hint("list them with `coord ps --all` and `coord checkpoints`")
                })?;
                (client.run(manifest.run.as_str()).await?, Some(manifest))
            }
            Err(failure) => return Err(failure),
        };
        let began = began(client, &view).await?;
        let stood = match (&manifest, view.checkpoints.last()) {
            (Some(manifest), _) => Some(position(manifest)),
            (None, Some(last)) => Some(position(&self::manifest(client, &last.id.to_string()).await?)),
            (None, None) => None,
        };
        let checkpoint = manifest.as_ref().map(|manifest| (Manifest::id(&manifest.encode()), manifest.step));
        let (numerics, environment) = match manifest {
            Some(manifest) => (manifest.numerics, manifest.environment),
            None => (view.numerics.clone(), view.environment.clone()),
        };
        Ok(Self { view, checkpoint, began, stood, numerics, environment })
    }

    pub(crate) fn run(&self) -> String {
        self.view.row.id.to_string()
    }

    /// Reads the record of the run, and checks it by its digests.
    pub(crate) async fn record(&self, client: &mut Client) -> Result<Record, Failure> {
        Record::read(client, &self.run(), &self.began, self.stood.as_ref()).await
    }

    /// The run or checkpoint in words, for messages.
    pub(crate) fn name(&self) -> String {
        match &self.checkpoint {
            Some((id, step)) => format!("checkpoint {} (run {}, step {step})", id.short(), self.run()),
            None => format!("run {} ({})", self.run(), self.view.row.name),
        }
    }

    /// The step of the named checkpoint, or the last completed step of the run.
    pub(crate) fn last_step(&self) -> u64 {
        self.checkpoint.map_or(self.view.row.step, |(_, step)| step)
    }

    /// Where a replay of the steps after `step` begins: the nearest checkpoint at or before `step`, with its step. `None` is the start of
    /// the run.
    pub(crate) fn nearest(&self, step: u64) -> (Option<Digest>, u64) {
        let before = self.view.checkpoints.iter().rev().find(|checkpoint| checkpoint.step <= step);
        before.map_or((None, self.began.steps), |checkpoint| (Some(checkpoint.id), checkpoint.step))
    }

    /// The digest of the state at `step`, if a checkpoint was taken there.
    pub(crate) fn state_at(&self, step: u64) -> Option<Digest> {
        self.view
            .checkpoints
            .iter()
            .find(|checkpoint| checkpoint.step == step)
            .map(|checkpoint| checkpoint.state_digest)
    }
}

/// Fails if `name`, by which the run `view` was found, is also a prefix of a checkpoint's id.
async fn no_checkpoint(client: &Client, name: &str, view: &RunView) -> Result<(), Failure> {
    if view.row.id.as_str() == name || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    match manifest(client, name).await {
        Err(failure) if failure.is_nothing() => Ok(()),
        Err(failure) => Err(failure),
        Ok(manifest) => {
            let checkpoint = Manifest::id(&manifest.encode());
            let words =
                format!("`{name}` matches run `{}` ({}) and checkpoint `{checkpoint}`", view.row.id, view.row.name);
            Err(Failure::new(Exit::NotFound, words))
        }
    }
}

/// Reads the record of a replay.
pub(crate) async fn record_of_replay(client: &mut Client, replay: &RunView) -> Result<Record, Failure> {
    let began = began(client, replay).await?;
    Record::read(client, replay.row.id.as_str(), &began, None).await
}

/// Start of a run's record: the checkpoint that it was resumed from, or step 0.
async fn began(client: &Client, view: &RunView) -> Result<RecordPosition, Failure> {
    Ok(match view.row.parent {
        Some(parent) => position(&manifest(client, &parent.to_string()).await?),
        None => RecordPosition { steps: 0, digest: chain_start() },
    })
}

/// Position of the record at a checkpoint. Steps count from step 1 of the first ancestor.
fn position(manifest: &Manifest) -> RecordPosition {
    RecordPosition { steps: manifest.step, digest: manifest.record.digest }
}

/// Fetches the manifest of the checkpoint with this id or unique prefix.
pub(crate) async fn manifest(client: &Client, name: &str) -> Result<Manifest, Failure> {
    let text = client.query(What::Manifest(name.to_owned())).await?;
    Manifest::decode(text.as_bytes()).map_err(|error| Failure::caused(Exit::Unreachable, &error))
}
