//! A run in memory, before its first step: built from a job and its data, and put where a checkpoint says.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{Manifest, Override, RecordPosition};
use lockstep_common::sampler::{Cursor, Sampler};
use lockstep_data::DataSets;
use lockstep_data::files::Watch;
use lockstep_models::{Model, Watched};
use lockstep_store::BlobStore;
use tch::Device;
use tracing::{debug, info};

use super::SetupError;
use super::hook::{Hooks, StepHook};
use crate::checkpoint::{self, Ranks, RunPreprocessing, State, reconcile};
use crate::observe::importance;
use crate::program::{OtherData, Setup, Source};
use crate::reduce::Layout;

/// A run in memory: model, data and state, before or between steps.
pub struct Trainer {
    pub(super) job: JobSpec,
    pub(super) data: DataSets,
    pub(super) samples: Cursor,
    pub(super) ranks: Ranks,
    pub(super) layout: Layout,
    pub(super) device: Device,
    pub(super) state: State,
    pub(super) record: Option<RecordPosition>,
    pub(super) preprocessing: RunPreprocessing,
    pub(super) until: u64,
    pub(super) fingerprints_every: u64,
    pub(super) replay: bool,
    pub(super) reads_later: bool,
    pub(super) judge_at: BTreeSet<u64>,
    pub(super) hooks: Hooks,
    pub(super) derived: Option<Override>,
    pub(super) watch: Arc<Watch>,
}

impl Trainer {
    /// Opens the data of a run and builds its model, as `source` does, and puts both where the checkpoint says, if there is
    /// one.
    ///
    /// [`crate::evidence::numerics::apply`] goes before.
    pub fn load(
        source: &dyn Source,
        setup: Setup,
        restore: Option<(&Manifest, &BlobStore)>,
    ) -> Result<Self, SetupError> {
        let setup = setup.known_from(restore.and_then(|(manifest, _)| manifest.preprocessing.clone()));
        let (job, device) = (setup.job(), setup.device());
        let data = source.data(&setup)?;
        let manifest = restore.map(|(manifest, _)| manifest);
        let preprocessing = reconcile(data.train.as_ref(), manifest, setup.other_data().is_some())?;
        if job.eval.is_some() && data.validation.is_none() {
            return Err(SetupError::NoValidation);
        }
        let measured = job.eval.as_ref().is_some_and(|eval| eval.feature_importance.is_some());
        if measured && !importance::is_measurable(data.train.shape()) {
            return Err(SetupError::Features(data.train.shape().input.clone()));
        }
        let batch = &job.batch;
        let sampler = Sampler::new(data.train.len(), batch.size, job.ranks, job.seed, batch.shuffle, batch.last)?;
        let model = Box::new(Watched::new(source.model(data.train.shape(), &setup)?));
        debug!("{}", model.describe());
        let layout =
            Layout::new(model.parameters().iter().map(|parameter| (parameter.name.as_str(), &parameter.tensor)));
        let mut state = State::new(job, model)?;
        let ranks = Ranks::new(job.seed, sampler.clone(), device);
        let (mut record, mut derived) = (None, None);
        if let Some((manifest, store)) = restore {
            derived = checkpoint::load(manifest, job, &ranks, store, &mut state, setup.other_data().is_some())?;
            // As many samples give the same positions, and need no word.
            let same_length = setup.other_data() == Some(OtherData::AsLong);
            derived = derived
                .filter(|one| !(same_length && one.was == one.now))
                .map(|one| Override { now: format!("{}, of {} samples", one.now, data.train.len()), ..one });
            record = Some(manifest.record.clone());
            info!(step = state.step, "resumed");
        }
        let (until, fingerprints_every) = (job.steps, job.report.fingerprints_every);
        Ok(Self {
            job: setup.into_job(),
            data,
            samples: Cursor::new(sampler),
            ranks,
            layout,
            device,
            state,
            record,
            preprocessing,
            until,
            fingerprints_every,
            replay: false,
            reads_later: device.is_cuda(),
            judge_at: BTreeSet::new(),
            hooks: Hooks::default(),
            derived,
            watch: Arc::default(),
        })
    }

    /// The same steps again, up to `until` completed ones, with fingerprints every so many steps, but no evaluations.
    #[must_use]
    pub fn replay(self, until: u64, fingerprints_every: u64) -> Self {
        Self { until, fingerprints_every, replay: true, ..self }
    }

    /// Also says what all tensors come to after these steps.
    #[must_use]
    pub fn judge_at(self, steps: impl Iterator<Item = u64>) -> Self {
        Self { judge_at: steps.collect(), ..self }
    }

    /// Reads loss and gradient norm of most steps while the next one is computed. On a GPU that is so anyway; elsewhere it only delays what
    /// is said of a step, and changes no bit.
    #[must_use]
    pub fn reading_later(self) -> Self {
        Self { reads_later: true, ..self }
    }

    /// Ends when one of these data files changes, before a checkpoint names it.
    #[must_use]
    pub fn watching(self, watch: Watch) -> Self {
        Self { watch: Arc::new(watch), ..self }
    }

    /// With a hook into each step.
    #[must_use]
    pub fn with_hook(mut self, hook: impl StepHook + 'static) -> Self {
        self.hooks.add(Box::new(hook));
        self
    }

    /// What is trained.
    pub fn job(&self) -> &JobSpec {
        &self.job
    }

    /// Where it is trained.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The model, as far as it is trained.
    pub fn model(&self) -> &dyn Model {
        self.state.model.as_ref()
    }

    /// How the data's own preprocessing differs from the checkpoint's, which is used instead: by a person's word.
    pub fn note(&self) -> Option<&str> {
        self.preprocessing.note.as_deref()
    }

    /// The sample positions, where they are not the checkpoint's because its data was replaced.
    pub fn derived(&self) -> Option<&Override> {
        self.derived.as_ref()
    }

    /// How the gradients lie in the tensor that is reduced.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
