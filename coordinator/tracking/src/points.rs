//! The metrics of a report block: every number under the name of its series.

use std::collections::BTreeMap;

use lockstep_common::is_steering;
use lockstep_common::manifest::Piece;
use lockstep_common::series::{Histogram, Point, SeriesKey};
use lockstep_rpc::{
    BlobRef, DeviceReport, EvalReport, HistogramReport, LayerReport, MediaReport, ModelReport, ReportBlock, Series,
    StepReport, SystemReport, UnsoundBlock,
};

/// All of a block.
#[derive(Debug, Default)]
pub struct BlockMetrics {
    /// Points of each series, in order.
    pub points: BTreeMap<SeriesKey, Vec<Point>>,
    /// Distributions.
    pub histograms: Vec<(SeriesKey, Histogram)>,
    /// Images, texts, files.
    pub media: Vec<MediaReport>,
    /// What is trained.
    pub model: Option<ModelReport>,
    /// Values that were dropped on the way.
    pub dropped: u64,
    /// Series, distributions and media that nobody could show or find: they are in none of the lists above.
    pub unfit: Vec<Unfit>,
}

/// A series, a distribution or a medium of a block that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Its name as it was reported.
    pub name: String,
    /// The first step that the block has of it.
    pub step: u64,
    /// In milliseconds of Unix time.
    pub at_ms: u64,
    /// The reason.
    pub why: String,
}

/// Sorts `block` by series.
pub fn metrics_of(block: ReportBlock) -> BlockMetrics {
    let process = block.process;
    let mut metrics =
        BlockMetrics { media: block.media, model: block.model, dropped: block.dropped, ..BlockMetrics::default() };
    metrics.steps(&block.steps);
    block.layers.iter().for_each(|report| metrics.layers(report));
    block.evals.iter().for_each(|report| metrics.eval(report));
    block.systems.iter().for_each(|report| metrics.system(report, process));
    block.series.iter().for_each(|series| metrics.series(series));
    metrics.histograms = block.histograms.into_iter().map(histogram).collect();
    metrics.sift();
    metrics
}

/// Of a block that is not taken: nothing, and that it is left out.
pub(crate) fn metrics_without(block: UnsoundBlock) -> BlockMetrics {
    let unfit = Unfit { name: "a block of reports".to_owned(), step: block.step, at_ms: 0, why: block.why };
    BlockMetrics { unfit: vec![unfit], ..BlockMetrics::default() }
}

/// Why nothing may have this name. Every list shows names, and also tools that steer a terminal with them.
fn unfit_name(name: &str) -> Option<String> {
    name.contains(is_steering).then(|| "its name has control characters or marks of direction".to_owned())
}

fn unfit_media(one: &MediaReport) -> Option<String> {
    let bytes = |blob: &BlobRef| Piece::try_from(blob.clone()).is_err().then_some(blob.digest.len());
    let digest = |bytes| format!("the digest of its blob has {bytes} bytes, not 32");
    unfit_name(&one.name).or_else(|| one.blob.as_ref().and_then(bytes).map(digest))
}

impl BlockMetrics {
    /// Moves to `unfit` what has a wrong name or digest.
    fn sift(&mut self) {
        let Self { points, histograms, media, unfit, .. } = self;
        let mut fits = |name: &str, step, at_ms, why: Option<String>| {
            let fits = why.is_none();
            unfit.extend(why.map(|why| Unfit { name: name.to_owned(), step, at_ms, why }));
            fits
        };
        points.retain(|key, points| {
            let (step, at_ms) = points.first().map_or((0, 0), |first| (first.step, first.at_ms));
            fits(&key.name, step, at_ms, unfit_name(&key.name))
        });
        histograms.retain(|(key, one)| fits(&key.name, one.step, one.at_ms, unfit_name(&key.name)));
        media.retain(|one| fits(&one.name, one.step, one.at_ms, unfit_media(one)));
    }

    fn put(&mut self, key: SeriesKey, step: u64, at_ms: u64, value: f64) {
        self.points.entry(key).or_default().push(Point { step, at_ms, value });
    }

    fn steps(&mut self, steps: &[StepReport]) {
        if steps.is_empty() {
            return;
        }
        let mut column = |name: &str, value: &dyn Fn(&StepReport) -> f64| {
            let point = |report: &StepReport| Point { step: report.step, at_ms: report.at_ms, value: value(report) };
            self.points.insert(SeriesKey::whole(name), steps.iter().map(point).collect());
        };
        column("loss", &|report| f64::from_bits(report.loss));
        column("grad_norm", &|report| f64::from_bits(report.grad_norm));
        column("lr", &|report| f64::from_bits(report.lr));
        column("step_seconds", &|report| report.micros as f64 * 1e-6);
    }

    fn layers(&mut self, report: &LayerReport) {
        let (step, at_ms) = (report.step, report.at_ms);
        let mut each = |what: &str, values: &mut dyn Iterator<Item = f64>| {
            for (name, value) in report.names.iter().zip(values) {
                self.put(SeriesKey::whole(format!("{what}/{name}")), step, at_ms, value);
            }
        };
        each("grad_norm", &mut report.grad_norms.iter().copied());
        each("weight_norm", &mut report.weight_norms.iter().copied());
        let ratio = |(update, weight): (&f64, &f64)| update / weight;
        each("update_ratio", &mut report.update_norms.iter().zip(&report.weight_norms).map(ratio));
    }

    fn eval(&mut self, report: &EvalReport) {
        let own = report.metrics.iter().map(|(name, value)| (name.as_str(), Some(*value)));
        let known = [("loss", Some(report.loss)), ("accuracy", report.accuracy), ("perplexity", report.perplexity)];
        for (name, value) in known.into_iter().chain(own) {
            if let Some(value) = value {
                self.put(SeriesKey::whole(format!("eval/{name}")), report.step, report.at_ms, value);
            }
        }
    }

    fn system(&mut self, report: &SystemReport, process: u32) {
        let mut put = |name: &str, value: f64| {
            self.put(SeriesKey::part(name, process), report.step, report.at_ms, value);
        };
        for (phase, micros) in &report.phase_micros {
            put(&format!("phase/{phase}"), micros * 1e-6);
        }
        put("process/rss_bytes", report.rss_bytes as f64);
        put("process/cpu", report.cpu_share);
        put("process/minor_faults", report.minor_faults as f64);
        put("process/major_faults", report.major_faults as f64);
        put("process/read_bytes", report.read_bytes as f64);
        put("process/written_bytes", report.written_bytes as f64);
        if let Some(device) = &report.device {
            device_numbers(device, &mut put);
        }
        if process == 0 {
            let rate = report.samples_per_second;
            self.put(SeriesKey::whole("throughput/samples"), report.step, report.at_ms, rate);
        }
    }

    fn series(&mut self, series: &Series) {
        let key = SeriesKey { name: series.name.clone(), part: series.part };
        self.points.entry(key).or_default().extend(series.points());
    }
}

fn device_numbers(device: &DeviceReport, put: &mut impl FnMut(&str, f64)) {
    put("device/allocated_bytes", device.allocated_bytes as f64);
    put("device/reserved_bytes", device.reserved_bytes as f64);
    put("device/active_bytes", device.active_bytes as f64);
    put("device/peak_bytes", device.peak_allocated_bytes as f64);
    put("device/allocation_retries", device.allocation_retries as f64);
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    let told = [
        ("device/utilisation", device.utilisation),
        ("device/memory_used_bytes", whole(device.used_bytes)),
        ("device/power_watts", device.power_watts),
        ("device/temperature_celsius", device.temperature_celsius),
        ("device/sm_clock_mhz", device.sm_clock_mhz),
        ("device/memory_clock_mhz", device.memory_clock_mhz),
        ("device/throttle_reasons", whole(device.throttle_reasons)),
        ("device/ecc_errors", whole(device.ecc_errors)),
        ("device/nvlink_bytes", whole(device.nvlink_bytes)),
        ("device/xid", whole(device.xid)),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            put(name, value);
        }
    }
}

fn histogram(report: HistogramReport) -> (SeriesKey, Histogram) {
    let mut bin = 0_u32;
    let bins = report.bins.iter().zip(report.counts).map(|(difference, count)| {
        bin = bin.saturating_add(*difference);
        (bin.min(u32::from(u16::MAX)) as u16, count)
    });
    let histogram = Histogram {
        step: report.step,
        at_ms: report.at_ms,
        count: report.count,
        zeros: report.zeros,
        nans: report.nans,
        infs: report.infs,
        min: report.min,
        max: report.max,
        mean: report.mean,
        std: report.std,
        bins: bins.collect(),
    };
    (SeriesKey::whole(report.name), histogram)
}

#[cfg(test)]
mod tests {
    use lockstep_common::series::{is_own_histogram, is_own_series};

    use super::*;

    #[test]
    fn every_kind_of_report_comes_under_its_name() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let block = ReportBlock {
            process: 3,
            steps: vec![StepReport { step: 1, loss: 2.0_f64.to_bits(), at_ms: 5, ..StepReport::default() }],
            layers: vec![LayerReport {
                step: 1,
                names,
                grad_norms: vec![1.0, 2.0],
                weight_norms: vec![4.0, 8.0],
                update_norms: vec![1.0, 1.0],
                at_ms: 5,
            }],
            evals: vec![EvalReport {
                step: 1,
                loss: 0.5,
                metrics: [("psnr".into(), 9.0)].into(),
                ..EvalReport::default()
            }],
            systems: vec![SystemReport {
                step: 1,
                phase_micros: [("forward".into(), 2e6)].into(),
                rss_bytes: 7,
                device: Some(DeviceReport { power_watts: Some(250.0), ..DeviceReport::default() }),
                ..SystemReport::default()
            }],
            series: vec![Series {
                name: "mine".into(),
                part: Some(1),
                steps: vec![10, 2, 0],
                at_ms: vec![100, -1, 5],
                values: vec![1.0, 2.0, 3.0],
            }],
            histograms: vec![HistogramReport {
                name: "weight/a".into(),
                bins: vec![500, 3],
                counts: vec![1, 2],
                ..HistogramReport::default()
            }],
            ..ReportBlock::default()
        };
        let metrics = metrics_of(block);
        let value = |key: &SeriesKey| metrics.points[key].last().unwrap().value;
        assert_eq!(value(&SeriesKey::whole("loss")), 2.0);
        assert_eq!(value(&SeriesKey::whole("update_ratio/b")), 0.125);
        assert_eq!(value(&SeriesKey::whole("eval/psnr")), 9.0);
        assert_eq!(value(&SeriesKey::part("phase/forward", 3)), 2.0);
        assert_eq!(value(&SeriesKey::part("device/power_watts", 3)), 250.0);
        let mine: Vec<_> = metrics.points[&SeriesKey::part("mine", 1)].iter().map(|p| (p.step, p.at_ms)).collect();
        assert_eq!(mine, [(10, 100), (12, 99), (12, 104)]);
        assert_eq!(metrics.histograms[0].1.bins, [(500, 1), (503, 2)]);
        assert!(!metrics.points.contains_key(&SeriesKey::whole("throughput/samples")), "process 0 speaks for all");
        let refused = |key: &SeriesKey| is_own_series(&key.name) || key.name == "mine";
        assert!(metrics.points.keys().all(refused), "a program could take a name of: {:?}", metrics.points.keys());
        assert!(is_own_histogram(&metrics.histograms[0].0.name));
    }
}
