//! Measurements on validation samples: loss, metrics, and the importance of each feature.

use lockstep_models::take_logged;

use super::{Run, TrainError, Trainer, borrow};
use crate::observe::{LogSource, Phase, evaluation, importance};

impl Run {
    /// Evaluates the model, and reports the result.
    pub(super) fn evaluate(&mut self) -> Result<(), TrainError> {
        self.reporter.spent(Phase::Other);
        let Trainer { job, data, samples, device, state, .. } = &self.trainer;
        if let (Some(validation), Some(eval)) = (&data.validation, &job.eval) {
            let plan = evaluation::Plan {
                job,
                step: state.step,
                samples: eval.samples.unwrap_or(u64::MAX).min(validation.len()),
                chunk: samples.sampler().micro_batch(),
                device: *device,
            };
            let (model, exchange) = (state.model.as_ref(), borrow(&mut self.exchange));
            let report = evaluation::run(&plan, validation.as_ref(), model, self.process, exchange)
                .map_err(|error| TrainError::measuring(state.step, error))?;
            self.reporter.logged(state.step, LogSource::Evaluation)?;
            if self.process.index == 0 {
                self.reporter.eval(report);
            }
        }
        self.reporter.spent(Phase::Evaluation);
        Ok(())
    }

    /// Measures the importance of each feature of the inputs, and reports it.
    pub(super) fn measure_importance(&mut self) -> Result<(), TrainError> {
        self.reporter.spent(Phase::Other);
        let Trainer { job, data, samples, device, state, .. } = &self.trainer;
        let asked = job.eval.as_ref().and_then(|eval| eval.feature_importance.as_ref());
        if let (Some(validation), Some(asked)) = (&data.validation, asked) {
            let plan = importance::Plan {
                step: state.step,
                root: job.seed,
                samples: asked.samples.min(validation.len()),
                chunk: samples.sampler().micro_batch(),
                repeats: asked.repeats,
                device: *device,
            };
            let (model, exchange) = (state.model.as_ref(), borrow(&mut self.exchange));
            let found = importance::measure(&plan, validation.as_ref(), model, self.process, exchange)
                .map_err(|error| TrainError::measuring(state.step, error))?;
            // Values that the model's code logs here belong to no batch.
            take_logged();
            if self.process.index == 0 {
                for importance::Importance { name, permutation, gradient } in found {
                    let step = state.step;
                    self.reporter.number(&format!("importance/permutation/{name}"), None, step, permutation);
                    self.reporter.number(&format!("importance/gradient/{name}"), None, step, gradient);
                }
            }
        }
        self.reporter.spent(Phase::Evaluation);
        Ok(())
    }
}
