//! Measurements that are too expensive for every step: distributions, norms of parameters and updates, the gradient norm of each rank. Made
//! every `report.histograms_every` steps.

use lockstep_common::job::JobSpec;
use lockstep_common::series::Histogram;
use lockstep_models::Model;
use lockstep_rpc::{ModelReport, ParameterReport};
use lockstep_tch_ext::Error;
use lockstep_tch_ext::histogram::{Given, Look, histogram_of, watch_forward};
use tch::Tensor;

use super::Reporter;
use crate::reduce::{ProcessIndex, norm};

/// Upper limit for the elements of an activation that are counted: enough for a distribution.
const SAMPLED: u32 = 1 << 16;

/// The inspection of one step. Each process inspects a part of the parameters, because all processes have the same ones.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// The number of completed steps after the inspected step.
    step: u64,
    process: ProcessIndex,
    /// This process's parameters before the optimizer's step.
    before: Vec<Tensor>,
}

impl Inspection {
    /// For the step that completes `step`.
    pub(crate) fn of(step: u64, process: ProcessIndex) -> Self {
        Self { step, process, before: Vec::new() }
    }

    /// Runs `forward`, and reports the distribution of each layer's activations.
    pub(crate) fn forward<T>(&self, reporter: &mut Reporter, forward: impl FnOnce() -> T) -> Result<T, Error> {
        let (given, layers) = watch_forward(Look::Layers(SAMPLED), forward)?;
        for (name, layer) in named(layers) {
            reporter.histogram(name, self.step, &layer.histogram);
        }
        Ok(given)
    }

    /// Reports the norm of the gradient of `rank`.
    pub(crate) fn rank(&self, reporter: &mut Reporter, rank: u32, gradients: &Tensor) -> Result<(), Error> {
        reporter.number("rank/grad_norm", Some(rank), self.step, norm(gradients)?);
        Ok(())
    }

    /// Reports the distributions of the mean gradients, and copies the parameters before they change. `flat` has the gradient of
    /// parameter `i` in `offsets[i]..offsets[i + 1]`.
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

    /// Reports the distributions and norms of the parameters after the optimizer's step, and the norms of their updates.
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

/// The L2 norm, computed from mean and deviation.
fn norm_of(histogram: &Histogram) -> f64 {
    let Histogram { count, nans, infs, mean, std, .. } = histogram;
    if nans + infs > 0 { f64::NAN } else { (*count as f64 * (mean * mean + std * std)).sqrt() }
}

/// The parameters of the model, in the order of definition, then its buffers.
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

/// Names: `activation/<index of the layer in the forward pass>.<operator>`. An operator that is not a layer has the index of the next
/// layer.
pub(crate) fn named(seen: Vec<Given>) -> impl Iterator<Item = (String, Given)> {
    seen.into_iter().scan(0, |layers, given| {
        let name = format!("activation/{layers:03}.{}", given.operator.trim_end_matches('_'));
        *layers += usize::from(given.layer);
        Some((name, given))
    })
}
