//! The importance of each feature of the inputs, measured on validation samples after a step.
//!
//! - By permutation: the increase of the mean loss if the values of the feature are shuffled among the samples.
//! - By gradient times input: the absolute values, summed over the feature, as a mean over the samples.
//!
//! A feature of a table is a column. A feature of an image is a cell of a grid, with all channels.
//!
//! Each feature is measured by one process alone, so the number of processes does not change the result. The measurement has its own
//! seeds, and does not change the state.

use lockstep_common::permutation::Permutation;
use lockstep_common::seed::{Stream, derive};
use lockstep_data::{Batch, Dataset, InputKind, SampleShape};
use lockstep_host::progress;
use lockstep_models::{Context, Model, ModelError, without_trace};
use tch::{Device, Kind, TchError, Tensor};

use super::MeasureError;
use super::evaluation::seed;
use crate::reduce::{Exchange, ProcessIndex};

/// Upper limit for the cells along each side of an image.
const CELLS: i64 = 8;
/// Upper limit for the features: each costs at least one evaluation.
pub(crate) const MOST_FEATURES: usize = 1024;

/// The parameters of a measurement.
pub(crate) struct Plan {
    /// Steps completed.
    pub(crate) step: u64,
    pub(crate) root: u64,
    /// Number of samples, from the first validation sample on.
    pub(crate) samples: u64,
    /// Samples of a batch.
    pub(crate) chunk: u64,
    pub(crate) repeats: u32,
    pub(crate) device: Device,
}

/// The importance of one feature.
#[derive(Debug)]
pub(crate) struct Importance {
    pub(crate) name: String,
    /// The increase of the mean loss.
    pub(crate) permutation: f64,
    /// The mean over the samples of `|gradient × input|`.
    pub(crate) gradient: f64,
}

/// A part of the inputs: start and length along each axis after the axis of samples.
#[derive(Debug, PartialEq, Eq)]
struct Feature {
    name: String,
    part: Vec<(i64, i64)>,
}

impl Feature {
    /// The view of this feature in `inputs`, of shape `[N, ..]`.
    fn of(&self, inputs: &Tensor) -> Result<Tensor, TchError> {
        let mut axes = self.part.iter().zip(1..);
        axes.try_fold(inputs.shallow_clone(), |view, (&(from, length), axis)| view.f_narrow(axis, from, length))
    }
}

/// Whether inputs of this shape have features, and not too many.
pub(crate) fn is_measurable(shape: &SampleShape) -> bool {
    (1..=MOST_FEATURES).contains(&features(shape, &[]).len())
}

/// The features of a table: its columns, with their `names` if there are any. Of an image (two axes, or three with the channels first):
/// cells.
fn features(shape: &SampleShape, names: &[String]) -> Vec<Feature> {
    let (height, width) = match *shape.input.as_slice() {
        _ if shape.kind == InputKind::Tokens => return Vec::new(),
        [columns] => {
            let name = |column: i64| names.get(column as usize).cloned().unwrap_or_else(|| column.to_string());
            return (0..columns).map(|column| Feature { name: name(column), part: vec![(column, 1)] }).collect();
        }
        [height, width] | [_, height, width] => (height, width),
        _ => return Vec::new(),
    };
    let cuts = |length: i64| {
        let size = (length + CELLS - 1) / CELLS;
        (0..length).step_by(size.max(1) as usize).map(move |from| (from, size.min(length - from)))
    };
    let mut cells = Vec::new();
    for (row, rows) in cuts(height).enumerate() {
        for (column, columns) in cuts(width).enumerate() {
            let channels = (shape.input.len() == 3).then(|| (0, shape.input[0]));
            let part = channels.into_iter().chain([rows, columns]).collect();
            cells.push(Feature { name: format!("row {row}, column {column}"), part });
        }
    }
    cells
}

/// Measures all features of the inputs of `validation`; the result is the same in all processes.
pub(crate) fn measure(
    plan: &Plan,
    validation: &dyn Dataset,
    model: &dyn Model,
    process: ProcessIndex,
    exchange: Option<&mut dyn Exchange>,
) -> Result<Vec<Importance>, MeasureError> {
    let samples = Samples::read(plan, validation)?;
    let features = features(validation.shape(), validation.features());
    let before = samples.loss(plan, model, &samples.inputs)?;
    let mut own = Vec::new();
    for feature in process.shard(features.iter()) {
        own.push(samples.rise(plan, model, feature, before)?);
    }
    let rises = match exchange {
        None => own,
        Some(exchange) => exchange.gather_items(own, features.len(), 1, plan.device)?,
    };
    let attributed = samples.attributed(plan, model)?;
    let count = plan.samples as f64;
    let sum = |feature: &Feature| feature.of(&attributed)?.f_sum(Kind::Double)?.f_double_value(&[]);
    let named = features.into_iter().zip(rises).map(|(feature, permutation)| {
        let gradient = sum(&feature)? / count;
        Ok(Importance { name: feature.name, permutation, gradient })
    });
    Ok(named.collect::<Result<_, TchError>>()?)
}

/// The samples in batches, and the inputs of all samples in one tensor.
struct Samples {
    batches: Vec<Batch>,
    inputs: Tensor,
}

impl Samples {
    fn read(plan: &Plan, validation: &dyn Dataset) -> Result<Self, MeasureError> {
        let mut batches = Vec::new();
        for from in (0..plan.samples).step_by(plan.chunk as usize) {
            progress::advance();
            let positions: Vec<u64> = (from..plan.samples.min(from + plan.chunk)).collect();
            batches.push(validation.batch(&positions, plan.device)?);
        }
        let inputs = Tensor::f_cat(&batches.iter().map(|batch| &batch.inputs).collect::<Vec<_>>(), 0)?;
        Ok(Self { batches, inputs })
    }

    /// The batches with `inputs` in place of their own, each with its context. They are copies, so the model may change them.
    fn with<'a>(
        &'a self,
        plan: &'a Plan,
        inputs: &'a Tensor,
    ) -> impl Iterator<Item = Result<(Batch, Context), TchError>> + 'a {
        let mut from = 0;
        self.batches.iter().zip(0..).map(move |(batch, number)| {
            let length = batch.inputs.size()[0];
            let inputs = inputs.f_narrow(0, from, length)?.f_detach_copy()?;
            from += length;
            let more = batch.more.iter().map(Tensor::f_detach_copy).collect::<Result<_, _>>()?;
            let context = Context { step: plan.step, rank: number, training: false, root: plan.root };
            Ok((Batch { inputs, targets: batch.targets.f_detach_copy()?, more }, context))
        })
    }

    /// The mean loss with `inputs` in place of the samples' own.
    fn loss(&self, plan: &Plan, model: &dyn Model, inputs: &Tensor) -> Result<f64, ModelError> {
        let (mut sum, mut count) = (0.0, 0);
        for given in self.with(plan, inputs) {
            progress::advance();
            let (batch, context) = given?;
            seed(&context, plan.device)?;
            let sums = model.evaluate(&batch, &context)?;
            sum += sums.loss_sum;
            count += sums.count;
        }
        Ok(sum / count as f64)
    }

    /// The increase of the mean loss if the values of `feature` are shuffled; the mean over the repeats.
    fn rise(&self, plan: &Plan, model: &dyn Model, feature: &Feature, before: f64) -> Result<f64, ModelError> {
        let own = feature.of(&self.inputs)?;
        let mut rise = 0.0;
        for repeat in 0..plan.repeats {
            // Evaluations use rank numbers from 0 up for their seeds, so shuffles count down from the largest number.
            let dealing = derive(plan.root, Stream::Eval, plan.step, u32::MAX - repeat);
            let dealt = Permutation::new(plan.samples, dealing);
            let order: Vec<i64> = (0..plan.samples).map(|place| dealt.at(place) as i64).collect();
            let order = Tensor::f_from_slice(&order)?.f_to(plan.device)?;
            let inputs = self.inputs.f_detach_copy()?;
            feature.of(&inputs)?.f_copy_(&own.f_index_select(0, &order)?)?;
            rise += self.loss(plan, model, &inputs)? - before;
        }
        Ok(rise / f64::from(plan.repeats))
    }

    /// `|gradient × input|` of each element, summed over the samples; the gradient is that of each sample's loss in evaluation mode.
    fn attributed(&self, plan: &Plan, model: &dyn Model) -> Result<Tensor, ModelError> {
        without_trace(model.buffers(), plan.device, || {
            let mut sum: Option<Tensor> = None;
            for given in self.with(plan, &self.inputs) {
                progress::advance();
                let (mut batch, context) = given?;
                seed(&context, plan.device)?;
                let samples = batch.inputs.size()[0];
                let inputs = batch.inputs.f_detach()?.f_set_requires_grad(batch.inputs.is_floating_point())?;
                let gradient = tch::with_grad(|| {
                    // Not the leaf itself: operators may change the inputs in place, which autograd forbids for leaves.
                    batch.inputs = inputs.f_alias_copy()?;
                    gradient_of(&model.loss(&batch, &context)?, &inputs)
                })?;
                // The loss of a batch is the mean over its samples.
                let each = gradient.f_mul_scalar(samples as f64)?.f_mul(&inputs.f_detach()?)?.f_abs()?;
                let own = each.f_sum_dim_intlist([0i64].as_slice(), true, Kind::Double)?;
                sum = Some(match sum {
                    None => own,
                    Some(sum) => sum.f_add(&own)?,
                });
            }
            Ok(sum.expect("there are at least two samples"))
        })
    }
}

/// The gradient of `loss` by `inputs`; zeros if the loss does not depend on them, for example because they are only indices.
fn gradient_of(loss: &Tensor, inputs: &Tensor) -> Result<Tensor, ModelError> {
    let found = if loss.requires_grad() && inputs.requires_grad() {
        Tensor::f_run_backward(&[loss], &[inputs], false, false)?.pop()
    } else {
        None
    };
    Ok(match found.filter(Tensor::defined) {
        Some(gradient) => gradient,
        None => inputs.f_detach()?.f_zeros_like()?,
    })
}

#[cfg(test)]
mod tests;
