//! Evaluation over the validation samples, shared out among processes, with sums added in an order that the number of
//! processes does not change.
//!
//! The samples are cut into chunks; chunk `i` is process `i mod processes`'s; all chunks' sums go to everybody and are
//! added in chunk order. It draws from seeds of its own and leaves no trace in the state.

use lockstep_common::job::{Data, JobSpec};
use lockstep_data::Dataset;
use lockstep_host::progress;
use lockstep_models::{Context, EvalSums, Model};
use lockstep_rpc::EvalReport;
use lockstep_tch_ext::generator;
use tch::Device;

use super::MeasureError;
use crate::reduce::{Exchange, ExchangeError, ProcessIndex};

/// Numbers that a chunk gives before the model's own: loss sum, right answers (-1: there are none to give), count.
const SUMS: usize = 3;

/// What is evaluated.
pub(crate) struct Plan<'a> {
    pub(crate) job: &'a JobSpec,
    /// Steps completed.
    pub(crate) step: u64,
    /// The first ones of the validation samples.
    pub(crate) samples: u64,
    /// Samples of a chunk.
    pub(crate) chunk: u64,
    pub(crate) device: Device,
}

/// Evaluates `model`.
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

/// Generators as this pass begins with them: what it draws is the same whoever computes it.
pub(crate) fn seed(context: &Context, device: Device) -> Result<(), lockstep_tch_ext::Error> {
    let seed = context.seed();
    generator::seed(Device::Cpu, seed)?;
    if device != Device::Cpu {
        generator::seed(device, seed)?;
    }
    Ok(())
}

/// Every process's sums, in chunk order: `width` numbers a chunk.
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
        // The reporter's clock tells.
        at_ms: 0,
    }
}
