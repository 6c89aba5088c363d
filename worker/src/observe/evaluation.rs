//! Evaluation on the validation samples, by all processes together, with a result that does not depend on their number.
//!
//! The samples are cut into chunks. Process `i mod processes` evaluates chunk `i`. Every process gets the sums of all chunks, and adds
//! them in the order of the chunks. The evaluation has its own seeds, and does not change the state.

use lockstep_common::job::{Data, JobSpec};
use lockstep_data::Dataset;
use lockstep_host::progress;
use lockstep_models::{Context, EvalSums, Model};
use lockstep_rpc::EvalReport;
use lockstep_tch_ext::generator;
use tch::Device;

use super::MeasureError;
use crate::reduce::{Exchange, ExchangeError, ProcessIndex};

/// Numbers of a chunk before the model's own metrics: sum of the loss, number of correct classes (-1: not applicable), number of samples.
const SUMS: usize = 3;

/// The parameters of an evaluation.
pub(crate) struct Plan<'a> {
    pub(crate) job: &'a JobSpec,
    /// Steps completed.
    pub(crate) step: u64,
    /// Number of samples, from the first validation sample on.
    pub(crate) samples: u64,
    /// Samples of a chunk.
    pub(crate) chunk: u64,
    pub(crate) device: Device,
}

/// Evaluates `model`; the report is the same in all processes.
pub(crate) fn run(
    plan: &Plan<'_>,
    validation: &dyn Dataset,
    model: &dyn Model,
    process: ProcessIndex,
    exchange: Option<&mut dyn Exchange>,
) -> Result<EvalReport, MeasureError> {
    let chunks = plan.samples.div_ceil(plan.chunk);
    let mut own = Vec::new();
    for chunk in process.shard(0..chunks) {
        progress::advance();
        let context = Context { step: plan.step, rank: chunk as u32, training: false, root: plan.job.seed };
        seed(&context, plan.device)?;
        let positions: Vec<u64> = (chunk * plan.chunk..plan.samples.min((chunk + 1) * plan.chunk)).collect();
        own.push(model.evaluate(&validation.batch(&positions, plan.device)?, &context)?);
    }
    let all = match exchange {
        None => own,
        Some(exchange) => share(&own, chunks, SUMS + model.metrics().len(), plan.device, exchange)?,
    };
    Ok(report(plan, model.metrics(), &all))
}

/// Seeds torch's generators for a pass, so that it draws the same numbers in whatever process it runs.
pub(crate) fn seed(context: &Context, device: Device) -> Result<(), lockstep_tch_ext::Error> {
    let seed = context.seed();
    generator::seed(Device::Cpu, seed)?;
    if device != Device::Cpu {
        generator::seed(device, seed)?;
    }
    Ok(())
}

/// The sums of all chunks, in chunk order, from all processes. A chunk has `width` numbers.
fn share(
    own: &[EvalSums],
    chunks: u64,
    width: usize,
    device: Device,
    exchange: &mut dyn Exchange,
) -> Result<Vec<EvalSums>, ExchangeError> {
    let mut numbers = Vec::with_capacity(own.len() * width);
    for sums in own {
        numbers.extend([sums.loss_sum, sums.right.map_or(-1.0, |right| right as f64), sums.count as f64]);
        numbers.extend(&sums.metrics);
    }
    let all = exchange.gather_items(numbers, chunks as usize, width, device)?;
    let sums = |numbers: &[f64]| {
        let (right, metrics) = (numbers[1], numbers[SUMS..].to_vec());
        let right = (right >= 0.0).then_some(right as u64);
        EvalSums { loss_sum: numbers[0], right, count: numbers[2] as u64, metrics }
    };
    Ok(all.chunks_exact(width).map(sums).collect())
}

fn report(plan: &Plan<'_>, metrics: &[&str], sums: &[EvalSums]) -> EvalReport {
    let count = sums.iter().map(|sums| sums.count).sum::<u64>() as f64;
    let mean = |of: &dyn Fn(&EvalSums) -> f64| sums.iter().fold(0.0, |total, sums| total + of(sums)) / count;
    let loss = mean(&|sums| sums.loss_sum);
    let right = sums.iter().try_fold(0, |total, sums| Some(total + sums.right?));
    EvalReport {
        step: plan.step,
        loss,
        accuracy: right.map(|right: u64| right as f64 / count),
        perplexity: matches!(plan.job.data, Data::Tokens { .. }).then(|| loss.exp()),
        samples: plan.samples,
        metrics: metrics
            .iter()
            .enumerate()
            .map(|(at, &name)| (name.to_owned(), mean(&|sums| sums.metrics[at])))
            .collect(),
        // The reporter fills it in.
        at_ms: 0,
    }
}
