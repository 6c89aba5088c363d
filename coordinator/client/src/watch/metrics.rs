//! A run's reports as `coord show RUN --metrics` prints them.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_rpc::{DeviceReport, EvalReport, LayerReport, ReportBlock, Series, StepReport, SystemReport};
use serde::Serialize;

use crate::connection::Client;
use crate::terminal::{Failure, Output};

/// All reports of a run, by kind.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Metrics {
    steps: Vec<Step>,
    evals: Vec<Eval>,
    layers: Vec<Layers>,
    systems: Vec<System>,
    /// Last readings of each process's device, by name of the series. The agent reports them before the process reports on itself.
    #[serde(skip)]
    readings: BTreeMap<u32, BTreeMap<String, f64>>,
}

/// The record of one step: numbers in decimal for people, and their bits for comparisons. In JSON, NaN is null.
#[derive(Debug, Serialize)]
struct Step {
    #[serde(rename = "step")]
    completed: u64,
    loss: f64,
    loss_bits: String,
    grad_norm: f64,
    grad_norm_bits: String,
    lr: f64,
    lr_bits: String,
    /// Digest of the sample positions.
    samples: String,
    /// Digest of the samples' bytes, if it was recorded.
    sample_bytes: Option<String>,
    /// Digest of the fingerprints of all tensors, at steps that have them.
    fingerprint: Option<String>,
    micros: u64,
}

#[derive(Debug, Serialize)]
struct Eval {
    step: u64,
    loss: f64,
    loss_bits: String,
    accuracy: Option<f64>,
    perplexity: Option<f64>,
    samples: u64,
    /// Metrics that a program computed itself, by name.
    metrics: BTreeMap<String, f64>,
}

/// Gradient norms by parameter at one step.
#[derive(Debug, Serialize)]
struct Layers {
    step: u64,
    grad_norms: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
struct System {
    process: u32,
    step: u64,
    samples_per_second: f64,
    phase_micros: BTreeMap<String, f64>,
    rss_bytes: u64,
    cpu_share: f64,
    device: Option<Device>,
}

#[derive(Debug, Serialize)]
struct Device {
    name: String,
    allocated_bytes: u64,
    reserved_bytes: u64,
    peak_allocated_bytes: u64,
    utilisation: Option<f64>,
    used_bytes: Option<u64>,
    power_watts: Option<f64>,
    temperature_celsius: Option<f64>,
}

impl Metrics {
    /// Reads all reports of `run`.
    pub(crate) async fn of(client: &mut Client, run: String) -> Result<Self, Failure> {
        let mut metrics = Self::default();
        let mut reports = client.reports(&run, false).await.map_err(|status| client.failure(status))?;
        while let Some(block) = reports.next().await.map_err(|status| client.failure(status))? {
            metrics.push(block);
        }
        Ok(metrics)
    }

    /// Adds the reports of a block.
    pub(crate) fn push(&mut self, block: ReportBlock) {
        self.steps.extend(block.steps.iter().map(Step::from));
        self.evals.extend(block.evals.iter().map(Eval::from));
        let gradients = block.layers.into_iter().filter(|report| !report.grad_norms.is_empty());
        self.layers.extend(gradients.map(Layers::from));
        let readings = self.readings.entry(block.process).or_default();
        for Series { name, values, .. } in block.series {
            if let (true, Some(value)) = (name.starts_with("device/"), values.last()) {
                readings.insert(name, *value);
            }
        }
        self.systems.extend(block.systems.into_iter().map(|report| System::new(block.process, report, readings)));
    }

    /// Name, step and value of each number in the record of `step`, and in the last evaluation at or before it.
    pub(crate) fn at(&self, step: u64) -> Vec<(&str, u64, f64)> {
        let mut found = Vec::new();
        if let Some(own) = self.steps.iter().find(|own| own.completed == step) {
            found.extend(
                [("loss", own.loss), ("gradient norm", own.grad_norm), ("learning rate", own.lr)]
                    .map(|(name, value)| (name, step, value)),
            );
        }
        if let Some(eval) = self.evals.iter().rev().find(|eval| eval.step <= step) {
            found.push(("evaluation loss", eval.step, eval.loss));
            let more = [("accuracy", eval.accuracy), ("perplexity", eval.perplexity)];
            found.extend(more.into_iter().filter_map(|(name, value)| Some((name, eval.step, value?))));
            found.extend(eval.metrics.iter().map(|(name, value)| (name.as_str(), eval.step, *value)));
        }
        found
    }

    /// Prints the record as a table, and a second table if there are evaluations.
    pub(crate) fn print(&self, out: &mut Output) {
        let number = |value: f64| format!("{value:.6}");
        let rows: Vec<Vec<String>> = self
            .steps
            .iter()
            .map(|s| {
                vec![
                    s.completed.to_string(),
                    number(s.loss),
                    number(s.grad_norm),
                    format!("{:.3e}", s.lr),
                    s.loss_bits.clone(),
                ]
            })
            .collect();
        out.table(&["STEP", "LOSS", "GRAD NORM", "LR", "LOSS BITS"], &rows);
        if self.evals.is_empty() {
            return;
        }
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let own: BTreeSet<&String> = self.evals.iter().flat_map(|eval| eval.metrics.keys()).collect();
        let rows: Vec<Vec<String>> = self
            .evals
            .iter()
            .map(|e| {
                let mut cells = vec![
                    e.step.to_string(),
                    number(e.loss),
                    optional(e.accuracy),
                    optional(e.perplexity),
                    e.samples.to_string(),
                ];
                cells.extend(own.iter().map(|&name| optional(e.metrics.get(name).copied())));
                cells
            })
            .collect();
        out.line("");
        let names: Vec<String> = own.iter().map(|name| name.to_uppercase()).collect();
        let mut heads = vec!["STEP", "EVAL LOSS", "ACCURACY", "PERPLEXITY", "SAMPLES"];
        heads.extend(names.iter().map(String::as_str));
        out.table(&heads, &rows);
    }
}

fn hex(bits: u64) -> String {
    format!("{bits:016x}")
}

impl From<&StepReport> for Step {
    fn from(report: &StepReport) -> Self {
        Self {
            completed: report.step,
            loss: f64::from_bits(report.loss),
            loss_bits: hex(report.loss),
            grad_norm: f64::from_bits(report.grad_norm),
            grad_norm_bits: hex(report.grad_norm),
            lr: f64::from_bits(report.lr),
            lr_bits: hex(report.lr),
            samples: hex(report.positions),
            sample_bytes: (report.contents != 0).then(|| hex(report.contents)),
            fingerprint: (report.fingerprint != 0).then(|| hex(report.fingerprint)),
            micros: report.micros,
        }
    }
}

impl From<&EvalReport> for Eval {
    fn from(report: &EvalReport) -> Self {
        Self {
            step: report.step,
            loss: report.loss,
            loss_bits: hex(report.loss.to_bits()),
            accuracy: report.accuracy,
            perplexity: report.perplexity,
            samples: report.samples,
            metrics: report.metrics.clone().into_iter().collect(),
        }
    }
}

impl From<LayerReport> for Layers {
    fn from(report: LayerReport) -> Self {
        Self { step: report.step, grad_norms: report.names.into_iter().zip(report.grad_norms).collect() }
    }
}

impl System {
    fn new(process: u32, report: SystemReport, readings: &BTreeMap<String, f64>) -> Self {
        Self {
            process,
            step: report.step,
            samples_per_second: report.samples_per_second,
            phase_micros: report.phase_micros.into_iter().collect(),
            rss_bytes: report.rss_bytes,
            cpu_share: report.cpu_share,
            device: report.device.map(|report| Device::new(report, readings)),
        }
    }
}

impl Device {
    /// `readings` fill the values that are absent in `report`; only earlier builds have them there.
    fn new(report: DeviceReport, readings: &BTreeMap<String, f64>) -> Self {
        let read = |name: &str| readings.get(name).copied();
        Self {
            name: report.name,
            allocated_bytes: report.allocated_bytes,
            reserved_bytes: report.reserved_bytes,
            peak_allocated_bytes: report.peak_allocated_bytes,
            utilisation: report.utilisation.or_else(|| read("device/utilisation")),
            used_bytes: report.used_bytes.or_else(|| read("device/memory_used_bytes").map(|bytes| bytes as u64)),
            power_watts: report.power_watts.or_else(|| read("device/power_watts")),
            temperature_celsius: report.temperature_celsius.or_else(|| read("device/temperature_celsius")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_read_is_shown_with_what_its_process_reports_next() {
        let mut metrics = Metrics::default();
        let power = |value| {
            let values = Series { name: "device/power_watts".into(), values: vec![value], ..Series::default() };
            ReportBlock { process: 1, series: vec![values], ..ReportBlock::default() }
        };
        let system = |process| {
            let report = SystemReport { device: Some(DeviceReport::default()), ..SystemReport::default() };
            ReportBlock { process, systems: vec![report], ..ReportBlock::default() }
        };
        for block in [system(1), power(100.0), power(120.5), system(1), system(0)] {
            metrics.push(block);
        }
        let json = serde_json::to_value(&metrics).unwrap();
        let shown: Vec<_> = (0..3).map(|at| json["systems"][at]["device"]["power_watts"].as_f64()).collect();
        assert_eq!(shown, [None, Some(120.5), None]);
        assert!(json.get("readings").is_none());
    }

    #[test]
    fn bits_are_sixteen_hexadecimal_digits_and_a_nan_keeps_its_own() {
        let mut metrics = Metrics::default();
        let step = StepReport {
            step: 7,
            loss: 1.5_f64.to_bits(),
            grad_norm: f64::NAN.to_bits(),
            lr: 0.1_f64.to_bits(),
            positions: 0xab,
            fingerprint: 0,
            micros: 3,
            at_ms: 5,
            contents: 0xcd,
        };
        metrics.push(ReportBlock { steps: vec![step], ..ReportBlock::default() });
        let json = serde_json::to_value(&metrics).unwrap();
        let step = &json["steps"][0];
        assert_eq!((&step["step"], &step["loss"], &step["micros"]), (&7.into(), &1.5.into(), &3.into()));
        assert_eq!(step["loss_bits"], "3ff8000000000000");
        assert_eq!((&step["samples"], &step["sample_bytes"]), (&hex(0xab).into(), &hex(0xcd).into()));
        assert_eq!(step["grad_norm_bits"], format!("{:016x}", f64::NAN.to_bits()));
        assert!(step["grad_norm"].is_null());
        assert!(["evals", "layers", "systems"].iter().all(|key| json[key].as_array().is_some_and(Vec::is_empty)));
    }
}
