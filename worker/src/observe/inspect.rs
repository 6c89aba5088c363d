//! What costs more to look at than a step can spare: distributions, norms of weights and updates, each rank's gradient. Looked
//! at every `report.histograms_every` steps.

use lockstep_common::job::JobSpec;
use lockstep_common::series::Histogram;
use lockstep_models::Model;
use lockstep_rpc::{ModelReport, ParameterReport};
use lockstep_tch_ext::Error;
use lockstep_tch_ext::histogram::{Given, Look, histogram_of, watch_forward};
use tch::Tensor;

use super::Reporter;
use crate::reduce::{ProcessIndex, norm};

/// Elements that are counted of what a layer gives: enough for a distribution.
const SAMPLED: u32 = 1 << 16;

/// One step, looked at. Processes share the parameters out, as all hold the same.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// The step that it completes.
    step: u64,
    process: ProcessIndex,
    /// This process's parameters before the optimizer's step.
    before: Vec<Tensor>,
}

impl Inspection {
    /// Of the step that completes `step`.
    pub(crate) fn of(step: u64, process: ProcessIndex) -> Self {
        Self { step, process, before: Vec::new() }
    }

    /// Runs `forward` and reports what each layer gives.
    pub(crate) fn forward<T>(&self, reporter: &mut Reporter, forward: impl FnOnce() -> T) -> Result<T, Error> {
        let (given, layers) = watch_forward(Look::Layers(SAMPLED), forward)?;
        for (name, layer) in named(layers) {
            reporter.histogram(name, self.step, &layer.histogram);
        }
        Ok(given)
    }

    /// Reports the norm of the gradient that `rank` gave.
    pub(crate) fn rank(&self, reporter: &mut Reporter, rank: u32, gradients: &Tensor) -> Result<(), Error> {
        reporter.number("rank/grad_norm", Some(rank), self.step, norm(gradients)?);
        Ok(())
    }

    /// Reports the mean gradients, `flat` with one parameter's between two `offsets`, and looks at the parameters before they
    /// change.
    pub(crate) fn gradients(
        &mut self,
        reporter: &mut Reporter,
        model: &dyn Model,
        flat: &Tensor,
        offsets: &[i64],
    ) -> Result<(), Error> {
        for (parameter, ends) in self.process.shard(model.parameters().iter().zip(offsets.windows(2))) {
            let histogram = histogram_of(&flat.f_narrow(0, ends[0], ends[1] - ends[0])?)?;
            reporter.histogram(format!("grad/{}", parameter.name), self.step, &histogram);
            self.before.push(parameter.tensor.f_detach_copy()?);
        }
        Ok(())
    }

    /// Reports the parameters after the optimizer's step, and what that changed.
    pub(crate) fn updated(self, reporter: &mut Reporter, model: &dyn Model) -> Result<(), Error> {
        let (mut names, mut weights, mut updates) = (Vec::new(), Vec::new(), Vec::new());
        for (parameter, before) in self.process.shard(model.parameters().iter()).zip(&self.before) {
            let histogram = histogram_of(&parameter.tensor)?;
            reporter.histogram(format!("weight/{}", parameter.name), self.step, &histogram);
            weights.push(norm_of(&histogram));
            let change = before.shallow_clone().f_sub_(&parameter.tensor.f_detach()?)?;
            updates.push(norm(&change.f_reshape([-1])?)?);
            names.push(parameter.name.clone());
        }
        reporter.updates(self.step, names, weights, updates);
        Ok(())
    }
}

/// The L2 norm, from mean and deviation.
fn norm_of(histogram: &Histogram) -> f64 {
    let Histogram { count, nans, infs, mean, std, .. } = histogram;
    if nans + infs > 0 { f64::NAN } else { (*count as f64 * (mean * mean + std * std)).sqrt() }
}

/// What is trained, in the order of definition.
pub(crate) fn model_report(job: &JobSpec, model: &dyn Model) -> ModelReport {
    let report = |name: &str, tensor: &Tensor, trainable| ParameterReport {
        name: name.to_owned(),
        shape: tensor.size(),
        trainable,
    };
    let trained = model.parameters().iter().map(|parameter| report(&parameter.name, &parameter.tensor, true));
    let kept = model.buffers().iter().map(|(name, tensor)| report(name, tensor, false));
    ModelReport { kind: job.model.word().to_owned(), parameters: trained.chain(kept).collect() }
}

/// `activation/<place among the layers of the forward pass>.<operator>`. What is no layer has the place of the next one.
pub(crate) fn named(seen: Vec<Given>) -> impl Iterator<Item = (String, Given)> {
    seen.into_iter().scan(0, |layers, given| {
        let name = format!("activation/{layers:03}.{}", given.operator.trim_end_matches('_'));
        *layers += usize::from(given.layer);
        Some((name, given))
    })
}
