//! A run in memory, before its first step: built from a job and its data, and set to the state of a checkpoint.

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

/// A run in memory that has not started: job, data, model and state. [`Trainer::load`] builds it, [`Trainer::run`] trains.
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
    /// Opens the data and builds the model of `source`. With `restore`, loads the state of that checkpoint from the store.
    ///
    /// Call [`crate::evidence::numerics::apply`] before, on the same thread: it sets libtorch's switches.
    ///
    /// # Errors
    /// The data, the model, the optimizer or the checkpoint does not fit the job.
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
            // With the same number of samples the positions are the same: nothing to report.
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

    /// Re-runs steps up to step `until` to compare them with the record: fingerprints every `fingerprints_every` steps, no evaluations.
    #[must_use]
    pub fn replay(self, until: u64, fingerprints_every: u64) -> Self {
        Self { until, fingerprints_every, replay: true, ..self }
    }

    /// Also reports the state's fingerprint and the gradient history after these steps; the coordinator uses them to judge corruption.
    #[must_use]
    pub fn judge_at(self, steps: impl Iterator<Item = u64>) -> Self {
        Self { judge_at: steps.collect(), ..self }
    }

    /// Reads loss and gradient norm of most steps while the next step is computed. This is the default on a GPU. On the CPU it only delays
    /// reports; the bits stay the same.
    #[must_use]
    pub fn reading_later(self) -> Self {
        Self { reads_later: true, ..self }
    }

    /// Ends the run if one of these data files changes, before a checkpoint names the changed file.
    #[must_use]
    pub fn watching(self, watch: Watch) -> Self {
        Self { watch: Arc::new(watch), ..self }
    }

    /// Adds a hook; hooks are called in the order in which they were added.
    #[must_use]
    pub fn with_hook(mut self, hook: impl StepHook + 'static) -> Self {
        self.hooks.add(Box::new(hook));
        self
    }

    /// The job that is trained.
    pub fn job(&self) -> &JobSpec {
        &self.job
    }

    /// The device of the model and its state.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The model, with the parameters of the current state.
    pub fn model(&self) -> &dyn Model {
        self.state.model.as_ref()
    }

    /// How the preprocessing of accepted data differs from the checkpoint's, which is used instead. `None` if they are equal.
    pub fn note(&self) -> Option<&str> {
        self.preprocessing.note.as_deref()
    }

    /// The change of sample positions if accepted data has another number of samples than the checkpoint's data.
    pub fn derived(&self) -> Option<&Override> {
        self.derived.as_ref()
    }

    /// The layout of the gradients in the flat tensor that is reduced.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
