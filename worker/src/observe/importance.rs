//! How much each feature of the inputs counts, measured on validation samples after a step.
//!
//! By permutation: a feature's values are shuffled among the samples; what the loss rises by is what the model loses with
//! it. By gradient times input: the mean over the samples of the absolute values, summed over the feature. Of an image a feature
//! is a cell of a grid, all channels.
//!
//! Features are shared out among processes, and each is measured by one alone: the number of processes changes no bit. It draws
//! from seeds of its own and leaves no trace in the state.

use lockstep_common::permutation::Permutation;
use lockstep_common::seed::{Stream, derive};
use lockstep_data::{Batch, Dataset, InputKind, SampleShape};
use lockstep_host::progress;
use lockstep_models::{Context, Model, ModelError, without_trace};
use tch::{Device, Kind, TchError, Tensor};

use super::MeasureError;
use super::evaluation::seed;
use crate::reduce::{Exchange, ProcessIndex};

/// Most cells along each side of an image.
const CELLS: i64 = 8;
/// Most features: each costs an evaluation, and more.
pub(crate) const MOST_FEATURES: usize = 1024;

/// What is measured, on what.
pub(crate) struct Plan {
    /// Steps completed.
    pub(crate) step: u64,
    pub(crate) root: u64,
    /// The first ones of the validation samples.
    pub(crate) samples: u64,
    /// Samples of a batch.
    pub(crate) chunk: u64,
    pub(crate) repeats: u32,
    pub(crate) device: Device,
}

/// What was measured of one feature.
#[derive(Debug)]
pub(crate) struct Importance {
    pub(crate) name: String,
    /// What the mean loss rises by.
    pub(crate) permutation: f64,
    /// The mean over the samples of `|gradient × input|`.
    pub(crate) gradient: f64,
}

/// A part of the inputs: for each axis behind that of the samples, from where on and how much.
#[derive(Debug, PartialEq, Eq)]
struct Feature {
    name: String,
    part: Vec<(i64, i64)>,
}

impl Feature {
    /// Its view of inputs `[N, ..]`.
    fn of(&self, inputs: &Tensor) -> Result<Tensor, TchError> {
        let mut axes = self.part.iter().zip(1..);
        axes.try_fold(inputs.shallow_clone(), |view, (&(from, length), axis)| view.f_narrow(axis, from, length))
    }
}

/// Whether inputs of this shape have features that can be told apart, and not too many.
pub(crate) fn is_measurable(shape: &SampleShape) -> bool {
    (1..=MOST_FEATURES).contains(&features(shape, &[]).len())
}

/// Of a table the columns, with their `names` if there are any; of an image (two axes, or three with the channels first) cells.
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

/// Measures all features of `validation`'s inputs; the same in all processes.
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

/// The samples that are measured on, in batches, and the inputs of all of them.
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

    /// The batches with other `inputs`, and what a model is told of each: copies, whatever the model does to them.
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

    /// The mean loss with other `inputs`.
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

    /// What the mean loss rises by if the values of `feature` are shuffled: the mean over the repeats.
    fn rise(&self, plan: &Plan, model: &dyn Model, feature: &Feature, before: f64) -> Result<f64, ModelError> {
        let own = feature.of(&self.inputs)?;
        let mut rise = 0.0;
        for repeat in 0..plan.repeats {
            // An evaluation's own seeds count ranks up from 0.
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

    /// `|gradient × input|` of each element, summed over the samples: of the loss of each sample, in evaluation mode.
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
                    // Not the leaf itself, which no operator may change in place.
                    batch.inputs = inputs.f_alias_copy()?;
                    gradient_of(&model.loss(&batch, &context)?, &inputs)
                })?;
                // A batch's loss is the mean over its samples.
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

/// The gradient of `loss` by `inputs`: zeros where it does not depend on them, as on those that are only looked up.
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
