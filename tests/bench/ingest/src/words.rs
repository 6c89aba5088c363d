//! Messages of simulated processes, of the same size as those of real jobs.

use std::collections::BTreeMap;
use std::path::Path;

use lockstep_common::manifest::{RankState, RecordPosition, Share, TensorEntry};
use lockstep_common::record::chain_start;
use lockstep_common::series::Point;
use lockstep_rpc::{Assignment, CheckpointShare, Ready, ReportBlock, StepReport, SystemReport};
use lockstep_store::BlobStore;

use crate::failure::Failure;

/// Keys of a numerics fingerprint of realistic size.
const NUMERICS: [&str; 24] = [
    "abi",
    "arithmetic",
    "autocast",
    "blas",
    "cpu.approximations",
    "cpu.denormals",
    "cpu.features",
    "cpu.model",
    "cpu.rounding",
    "deterministic",
    "device",
    "interop_threads",
    "libtorch",
    "libtorch.build",
    "libc",
    "libm",
    "mkl",
    "mkldnn",
    "openmp",
    "operators",
    "reduction",
    "threads",
    "torchscript.gradients",
    "vectors",
];
/// Keys of an environment of realistic size.
const ENVIRONMENT: [&str; 12] = [
    "cpu.cores",
    "cpu.model",
    "host",
    "kernel",
    "libtorch",
    "lockstep",
    "memory",
    "os",
    "program.cargo_lock",
    "program.compiler",
    "program.digest",
    "rustc",
];
const PHASES: [&str; 9] =
    ["data", "forward", "backward", "reduction", "optimizer", "record", "checkpoint", "evaluation", "other"];
/// Names of a rank's seeds.
const STREAMS: [&str; 3] = ["data", "forward", "init"];

/// A `Ready` message.
pub(crate) fn ready(of: &Assignment) -> Ready {
    let texts = |keys: &[&str]| {
        keys.iter().map(|key| ((*key).to_owned(), format!("a value of {key}, as it is measured"))).collect()
    };
    let address = format!("10.0.{}.{}:{}", of.process >> 8, of.process & 255, 40_000 + of.process % 20_000);
    Ready { address, numerics: texts(&NUMERICS), environment: texts(&ENVIRONMENT) }
}

/// A block of process 0: the record of steps, and telemetry.
pub(crate) fn steps(range: std::ops::Range<u64>) -> ReportBlock {
    let last = range.end;
    ReportBlock {
        steps: range.map(step_report).collect(),
        systems: vec![system_report(last)],
        record_before: chain_start().as_bytes().to_vec(),
        ..ReportBlock::default()
    }
}

/// A block of another process after `step`: telemetry only.
pub(crate) fn telemetry(process: u32, step: u64) -> ReportBlock {
    ReportBlock { process, systems: vec![system_report(step)], ..ReportBlock::default() }
}

/// The record of step `step` + 1: `loss`, `grad_norm`, `lr` and `step_seconds`.
pub(crate) fn step_report(step: u64) -> StepReport {
    let [loss, grad_norm] = [0, 1].map(|series| point(step, series));
    StepReport {
        step: loss.step,
        loss: loss.value.to_bits(),
        grad_norm: grad_norm.value.to_bits(),
        lr: 1e-3_f64.to_bits(),
        micros: 4000,
        at_ms: loss.at_ms,
        ..StepReport::default()
    }
}

fn system_report(step: u64) -> SystemReport {
    SystemReport {
        step,
        samples_per_second: 1234.5,
        phase_micros: PHASES.iter().map(|phase| ((*phase).to_owned(), 437.5)).collect(),
        rss_bytes: 1 << 30,
        cpu_share: 0.97,
        at_ms: point(step, 0).at_ms,
        minor_faults: 100_000,
        major_faults: 10,
        read_bytes: 1 << 28,
        written_bytes: 1 << 27,
        ..SystemReport::default()
    }
}

/// Writes a blob of one number into `store`, and returns a tensor with it.
pub(crate) fn tensor(store: &str, name: String) -> Result<TensorEntry, Failure> {
    let piece = BlobStore::existing(Path::new(store))?.put(&[0; 4])?;
    Ok(TensorEntry { name, dtype: "float".into(), shape: vec![1], pieces: vec![piece] })
}

/// Writes the share of a process that hosts one rank of the same number into `store`, and returns the report of it.
pub(crate) fn share(
    store: &str,
    step: u64,
    process: u32,
    tensors: Vec<TensorEntry>,
) -> Result<CheckpointShare, Failure> {
    let rank = RankState {
        rank: process,
        seeds: STREAMS.map(|stream| (stream.to_owned(), 7)).into(),
        epoch: 0,
        consumed: step,
        next_position: step,
        generators: BTreeMap::new(),
    };
    let record = (process == 0).then(|| RecordPosition { steps: step, digest: chain_start() });
    let share = Share { step, epoch: 0, tensors, ranks: vec![rank], record, preprocessing: None };
    let blob = BlobStore::existing(Path::new(store))?.put(&share.encode())?;
    Ok(CheckpointShare { step, blob: Some((&blob).into()) })
}

/// A point of a falling, noisy curve.
pub(crate) fn point(step: u64, series: u64) -> Point {
    let noise = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ series) >> 40;
    let value = 2.0 / (1.0 + step as f64 * 1e-4) + noise as f64 * 1e-9;
    Point { step: step + 1, at_ms: 1_795_000_000_000 + step * 4, value }
}
