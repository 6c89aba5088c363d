//! The training loop. Hot: no allocation per sample, no wait for the device in most steps ([`super::measure`]), no log above debug.

use std::ops::Range;

use lockstep_common::Digest;
use lockstep_common::manifest::RecordPosition;
use lockstep_common::world::hosted;
use lockstep_host::progress;
use lockstep_models::Context;
use lockstep_rpc::MAX_SHARE_BYTES;
use lockstep_store::BlobStore;
use lockstep_tch_ext::fold::layer_norms;
use tch::Tensor;

use super::buffers::Buffers;
use super::due::Due;
use super::numbers::Unread;
use super::seen::Seen;
use super::{TrainError, Trainer};
use crate::checkpoint::{self, ChangedBy, Saving, Staging, Writer};
use crate::evidence::{Fingerprinter, GradientHistory};
use crate::observe::{Inspection, LogSource, MediaWriter, Outbox, Phase, Reporter, model_report};
use crate::reduce::{Exchange, ProcessIndex, Reducer};

/// The result of a run that reached its last step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Steps completed.
    pub step: u64,
    /// Digest of the final state; equal in all processes.
    pub state: Digest,
    /// Length and digest of the record. Only process 0 has a record; in the others it is empty.
    pub record: RecordPosition,
}

/// A run in progress.
pub(super) struct Run {
    pub(super) trainer: Trainer,
    pub(super) process: ProcessIndex,
    pub(super) hosted: Range<u32>,
    pub(super) seen: Seen,
    pub(super) exchange: Option<Box<dyn Exchange>>,
    pub(super) parameters: Vec<Tensor>,
    pub(super) reducer: Reducer,
    pub(super) buffers: Option<Buffers>,
    pub(super) fingerprinter: Fingerprinter,
    pub(super) history: GradientHistory,
    /// Of the current step.
    pub(super) fingerprints: Due,
    pub(super) inspection: Option<Inspection>,
    /// The previous step, if its loss and norm are still on the device.
    pub(super) unread: Option<Unread>,
    /// Steps completed when this process began.
    pub(super) began: u64,
    /// The last step at which all processes had equal fingerprints.
    pub(super) agreed: u64,
    pub(super) checkpoints: Option<Writer>,
    pub(super) reporter: Reporter,
}

impl Trainer {
    /// Trains to the last step, as one of the processes that `exchange` connects, or alone without one. Checkpoints go to `store`, if
    /// there is one; reports go to `outbox`.
    pub fn run(
        self,
        exchange: Option<Box<dyn Exchange>>,
        store: Option<BlobStore>,
        outbox: &Outbox,
    ) -> Result<Finished, TrainError> {
        self.run_saving(exchange, store, outbox, None)
    }

    /// As [`Trainer::run`]. `saving` retries the last checkpoint until it is committed or given up; without it, one attempt is made.
    pub fn run_saving(
        self,
        exchange: Option<Box<dyn Exchange>>,
        store: Option<BlobStore>,
        outbox: &Outbox,
        saving: Option<&Saving<'_>>,
    ) -> Result<Finished, TrainError> {
        let process = exchange.as_ref().map_or(ProcessIndex::ALONE, |exchange| ProcessIndex {
            index: exchange.process() as u32,
            count: exchange.processes() as u32,
        });
        let mut run = Run::new(self, process, exchange, store, outbox)?;
        if saving.is_some() {
            run.check_describable()?;
        }
        while run.trainer.state.step < run.trainer.until {
            if let Err(error) = run.step() {
                let error = run.blame(error);
                // The reports of the steps before the error help to explain it.
                run.reporter.hand_over();
                return Err(error);
            }
        }
        run.finish(saving)
    }
}

impl Run {
    pub(super) fn new(
        trainer: Trainer,
        process: ProcessIndex,
        mut exchange: Option<Box<dyn Exchange>>,
        store: Option<BlobStore>,
        outbox: &Outbox,
    ) -> Result<Self, TrainError> {
        let Trainer { job, data, layout, device, state, record, .. } = &trainer;
        let hosted = hosted(process.index, process.count, job.ranks);
        let failed = |source| TrainError::Exchange { step: state.step, source };
        let order = job.numerics.reduction;
        let mut reducer =
            Reducer::new(layout, order, (process.index, process.count), job.ranks, *device, borrow(&mut exchange))
                .map_err(failed)?;
        let parameters: Vec<_> =
            state.model.parameters().iter().map(|parameter| parameter.tensor.shallow_clone()).collect();
        reducer.overlap(layout, &parameters).map_err(failed)?;
        let fingerprinter = Fingerprinter::new(state, reducer.parts()?, job.ranks, *device);
        let (sample, every) = (reducer.sample(0).numel() as i64, trainer.fingerprints_every);
        let history = GradientHistory::new(hosted.clone(), job.ranks, every, sample, (layout.kind(), *device))?;
        let agreed = state.step;
        let buffers = Buffers::new(state.model.buffers(), trainer.reads_later)?;
        let media = store.as_ref().and_then(|store| MediaWriter::start(store.another(), outbox));
        let checkpoints = store
            .map(|store| Writer::start(state, (process.index, process.count), store, outbox.clone(), &trainer.watch));
        let checkpoints = checkpoints.transpose()?;
        let mut reporter = Reporter::new(outbox.clone(), process.index, job.batch.size, *device, record.clone());
        reporter.samples_are(data.train.shape());
        reporter.write_media_with(media);
        if process.index == 0 {
            reporter.model(model_report(job, state.model.as_ref()));
        }
        Ok(Self {
            trainer,
            process,
            hosted,
            seen: Seen::default(),
            exchange,
            parameters,
            reducer,
            buffers,
            fingerprinter,
            history,
            fingerprints: Due::default(),
            inspection: None,
            unread: None,
            began: agreed,
            agreed,
            checkpoints,
            reporter,
        })
    }

    pub(super) fn step(&mut self) -> Result<(), TrainError> {
        let step = self.trainer.state.step;
        progress::at_step(step);
        self.fingerprints = self.trainer.fingerprints_due(step + 1, self.exchange.is_none());
        self.trainer.state.model.look_closely(self.fingerprints.compared || step == self.began);
        // A replay is compared by its record; distributions of these steps exist already in the run.
        let due = self.trainer.job.histograms_due(step + 1) && !self.trainer.replay;
        self.inspection = due.then(|| Inspection::of(step + 1, self.process));
        self.seen.clear();
        if let Some(buffers) = &mut self.buffers {
            buffers.begin_step()?;
        }
        for (index, rank) in self.hosted.clone().enumerate() {
            self.micro_batch(step, index, rank)?;
        }
        self.reduce(step)?;

        self.settle()?;
        let measured = self.measure(step)?;
        self.report_layers(step + 1)?;
        self.clip(&measured)?;
        self.reporter.spent(Phase::Reduction);
        let lr = self.update(step, &measured)?;
        if let Some(inspection) = self.inspection.take() {
            inspection.updated(&mut self.reporter, self.trainer.state.model.as_ref())?;
        }

        self.record(lr, measured)?;
        self.state_is_finite()?;
        if self.trainer.job.eval_due(step + 1) && !self.trainer.replay {
            self.evaluate()?;
        }
        if self.trainer.job.importance_due(step + 1) && !self.trainer.replay {
            self.measure_importance()?;
        }
        if self.trainer.job.checkpoint_due(step + 1) {
            self.checkpoint()?;
        }
        self.data_is_unchanged()?;
        self.reporter.spent(Phase::Other);
        Ok(())
    }

    /// Computes one rank's gradient and loss: a leaf of the reduction tree.
    fn micro_batch(&mut self, step: u64, index: usize, rank: u32) -> Result<(), TrainError> {
        let Trainer { job, data, samples, ranks, device, state, hooks, .. } = &mut self.trainer;
        ranks.seed_generators(step, rank)?;
        let positions = samples.positions(step, rank..rank + 1);
        let batch = self.seen.read(data.train.as_ref(), &positions, *device);
        let batch = batch.map_err(|source| TrainError::Data { step, source })?;
        self.reporter.spent(Phase::Data);
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.ready(ChangedBy::Forward);
            self.reporter.spent(Phase::Checkpoint);
        }
        let context = Context { step, rank, training: true, root: job.seed };
        let forward = || state.model.loss(&batch, &context);
        let loss = match &self.inspection {
            // The activations of one rank are enough: all ranks have samples of the same distribution.
            Some(inspection) if rank == 0 => inspection.forward(&mut self.reporter, forward)?,
            _ => forward(),
        };
        let loss = loss.map_err(|source| TrainError::Model { step, source })?;
        self.reporter.logged(step + 1, LogSource::Rank((job.ranks > 1).then_some(rank)))?;
        self.reporter.spent(Phase::Forward);
        self.reducer.leaf(index).loss.f_copy_(&loss.f_detach()?)?;
        if let Some(exchange) = borrow(&mut self.exchange).filter(|_| index + 1 == self.hosted.len()) {
            exchange.note(self.seen.word());
        }
        let looked_at = self.fingerprints.compared || self.inspection.is_some() || !hooks.is_empty();
        if index + 1 == self.hosted.len() && !looked_at {
            self.reducer.backward_beside(&loss, &self.parameters, &mut self.exchange)?;
        } else {
            self.reducer.backward(index, &loss, &self.parameters)?;
        }
        self.reporter.spent(Phase::Backward);
        hooks.gradient(step + 1, rank, &self.reducer.leaf(index).gradients)?;
        self.history.note(index, self.reducer.sample(index))?;
        if self.fingerprints.taken {
            self.fingerprinter.take_rank(rank, &self.reducer.leaf(index).gradients)?;
        }
        if let Some(inspection) = &self.inspection {
            inspection.rank(&mut self.reporter, rank, &self.reducer.leaf(index).gradients)?;
        }
        self.reporter.spent(Phase::Record);
        self.reducer.fold(index)?;
        if let Some(buffers) = &mut self.buffers {
            buffers.end_forward(rank).map_err(|source| TrainError::Model { step, source })?;
        }
        self.reporter.spent(Phase::Reduction);
        Ok(())
    }

    /// Gives every process the mean gradient and loss over all ranks, and the buffers of rank 0.
    fn reduce(&mut self, step: u64) -> Result<(), TrainError> {
        let failed = |source| TrainError::Exchange { step, source };
        self.reducer.finish(&mut self.exchange).map_err(failed)?;
        if let Some(buffers) = &mut self.buffers {
            buffers.end_step(borrow(&mut self.exchange)).map_err(failed)?;
        }
        Ok(())
    }

    fn report_layers(&mut self, step: u64) -> Result<(), TrainError> {
        let every = self.trainer.job.report.layer_norms_every;
        if self.process.index == 0 && every > 0 && step.is_multiple_of(every) {
            let norms = layer_norms(self.reducer.gradients(), self.trainer.layout.offsets())?;
            let parameters = self.trainer.state.model.parameters();
            self.reporter.layers(step, parameters.iter().map(|parameter| parameter.name.clone()).collect(), norms);
        }
        if let Some(inspection) = &mut self.inspection {
            let (model, offsets) = (self.trainer.state.model.as_ref(), self.trainer.layout.offsets());
            inspection.gradients(&mut self.reporter, model, self.reducer.gradients(), offsets)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), TrainError> {
        self.reporter.spent(Phase::Other);
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(()) };
        // The reports of a checkpoint's steps must be sent before its share.
        self.reporter.hand_over();
        let Trainer { samples, ranks, state, preprocessing, .. } = &self.trainer;
        let first = self.process.index == 0;
        checkpoints.stage(Staging {
            step: state.step,
            epoch: samples.sampler().epoch(state.step),
            ranks: ranks.at(state.step, self.hosted.clone())?,
            record: first.then(|| self.reporter.record().clone()),
            preprocessing: if first { preprocessing.used.clone() } else { None },
            steps: if first { state.steps()? } else { None },
            last: state.step == self.trainer.until,
        })?;
        if state.step == self.trainer.until {
            self.copy_is_finite()?;
        }
        self.reporter.spent(Phase::Checkpoint);
        Ok(())
    }

    /// Checks that the description of a checkpoint's share is not larger than the coordinator accepts.
    pub(super) fn check_describable(&self) -> Result<(), TrainError> {
        let Trainer { ranks, until, preprocessing, .. } = &self.trainer;
        let (Some(checkpoints), Some(last)) = (&self.checkpoints, self.hosted.clone().last()) else { return Ok(()) };
        let draft = ranks.at(*until, last..last + 1)?;
        let preprocessing = preprocessing.used.as_ref().filter(|_| self.process.index == 0);
        let bytes = checkpoints.described(&draft[0], self.hosted.len(), preprocessing);
        if bytes <= MAX_SHARE_BYTES {
            return Ok(());
        }
        Err(TrainError::Indescribable { process: self.process.index, ranks: self.hosted.len(), bytes })
    }

    /// Reports the end, waits for the last checkpoint, and checks the data files a last time.
    pub(super) fn finish(mut self, saving: Option<&Saving<'_>>) -> Result<Finished, TrainError> {
        self.reporter.finish(self.trainer.state.step);
        let state = checkpoint::state_digest(&self.trainer.state)?;
        let alone = self.checkpoints.is_none();
        if let (Some(saving), Some(checkpoints)) = (saving, &mut self.checkpoints) {
            saving.finish(checkpoints, self.trainer.state.step);
        }
        drop(self.checkpoints);
        // With checkpoints, all files were checked before the last one was written.
        if alone { self.trainer.watch.check_last() } else { self.trainer.watch.check() }?;
        Ok(Finished { step: self.trainer.state.step, state, record: self.reporter.record().clone() })
    }
}

pub(super) fn borrow(exchange: &mut Option<Box<dyn Exchange>>) -> Option<&mut dyn Exchange> {
    match exchange {
        Some(exchange) => Some(exchange.as_mut()),
        None => None,
    }
}
