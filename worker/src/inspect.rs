//! What costs more to look at than a step can spare: distributions, norms of weights and updates, each rank's gradient. Looked
//! at every `report.histograms_every` steps, and when a step has given something that is not finite, to say where it began.

use lockstep_common::job::JobSpec;
use lockstep_common::series::Histogram;
use lockstep_models::Model;
use lockstep_rpc::{ModelReport, ParameterReport};
use lockstep_tch_ext::Error;
use lockstep_tch_ext::histogram::{histogram_of, watch_forward};
use tch::{Device, Tensor};

use crate::exchange::{Exchange, ExchangeError};
use crate::reduction::norm;
use crate::report::Reporter;
use crate::train::{Place, TrainError};

/// Elements that are counted of what a layer gives: enough for a distribution.
const SAMPLED: u32 = 1 << 16;

/// One step, looked at. Processes share the parameters out, as all hold the same.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// The step that it completes.
    step: u64,
    place: Place,
    /// This process's parameters before the optimizer's step.
    before: Vec<Tensor>,
}

impl Inspection {
    /// Of the step that completes `step`.
    pub(crate) fn of(step: u64, place: Place) -> Self {
        Self { step, place, before: Vec::new() }
    }

    /// Runs `forward` and reports what each layer gives.
    pub(crate) fn forward<T>(&self, reporter: &mut Reporter, forward: impl FnOnce() -> T) -> Result<T, Error> {
        let (given, layers) = watch_forward(Some(SAMPLED), forward)?;
        for (name, histogram) in named(layers) {
            reporter.histogram(name, self.step, &histogram);
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
        for (parameter, ends) in self.place.own(model.parameters().iter().zip(offsets.windows(2))) {
            let histogram = histogram_of(&flat.f_narrow(0, ends[0], ends[1] - ends[0])?)?;
            reporter.histogram(format!("grad/{}", parameter.name), self.step, &histogram);
            self.before.push(parameter.tensor.f_detach_copy()?);
        }
        Ok(())
    }

    /// Reports the parameters after the optimizer's step, and what that changed.
    pub(crate) fn updated(self, reporter: &mut Reporter, model: &dyn Model) -> Result<(), Error> {
        let (mut names, mut weights, mut updates) = (Vec::new(), Vec::new(), Vec::new());
        for (parameter, before) in self.place.own(model.parameters().iter()).zip(&self.before) {
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

/// `activation/<place in the forward pass>.<operator>`.
fn named(layers: Vec<(String, Histogram)>) -> impl Iterator<Item = (String, Histogram)> {
    layers.into_iter().enumerate().map(|(place, (operator, histogram))| {
        (format!("activation/{place:03}.{}", operator.trim_end_matches('_')), histogram)
    })
}

/// Where a rank's forward or backward pass first gives something that is not finite.
pub(crate) fn first_not_finite(
    reporter: &mut Reporter,
    step: u64,
    names: &[&str],
    pass: impl FnOnce() -> Result<Vec<Tensor>, TrainError>,
) -> Result<Option<String>, TrainError> {
    let (gradients, layers) = watch_forward(None, pass)?;
    let mut found = None;
    for (name, histogram) in named(layers) {
        if found.is_none() && histogram.nans + histogram.infs > 0 {
            let bad = histogram.nans + histogram.infs;
            found = Some(format!("`{name}` ({bad} of {} elements)", histogram.count));
        }
        reporter.histogram(name, step, &histogram);
    }
    if found.is_some() {
        return Ok(found);
    }
    // The backward pass goes from the last to the first: where it begins to fail is the last in order.
    for (name, gradient) in names.iter().zip(&gradients?).rev() {
        let histogram = histogram_of(gradient)?;
        if histogram.nans + histogram.infs > 0 {
            return Ok(Some(format!("the gradient of `{name}`")));
        }
    }
    Ok(None)
}

/// Bytes of a place in words that processes tell each other.
const PLACE_BYTES: usize = 400;

/// What the first process, by number, says that knows something; the same in all.
pub(crate) fn shared_place(
    own: Option<&str>,
    device: Device,
    exchange: &mut dyn Exchange,
) -> Result<Option<String>, ExchangeError> {
    let mut numbers = vec![0.0; PLACE_BYTES];
    for (place, byte) in numbers.iter_mut().zip(own.into_iter().flat_map(str::bytes)) {
        *place = f64::from(byte);
    }
    let mine = Tensor::f_from_slice(&numbers)?.f_to(device)?;
    for tensor in &exchange.gather(mine)? {
        let numbers = Vec::<f64>::try_from(tensor)?;
        let bytes: Vec<u8> = numbers.into_iter().map(|number| number as u8).take_while(|byte| *byte != 0).collect();
        if !bytes.is_empty() {
            return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(None)
}
