//! The reports of a run: the record of every step, and telemetry. They are collected on the training thread, and handed over in blocks.
//! Hot: a step costs one push and, in process 0, one hash.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lockstep_common::manifest::RecordPosition;
use lockstep_common::record::{Evidence, Fingerprints, chain_start};
use lockstep_common::series::{Histogram, Point, SeriesKey, is_own_histogram, is_own_series};
use lockstep_data::{InputKind, SampleShape};
use lockstep_host::progress;
use lockstep_models::{Logged, take_logged};
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{
    EvalReport, FingerprintReport, HistogramReport, LayerReport, ModelReport, ReportBlock, Series, StepReport,
    SystemReport,
};
use lockstep_tch_ext::histogram::histogram_of;
use tch::Device;

use super::Outbox;
use super::device::device_report;
use super::media::{Content, Media, MediaWriter};
use super::usage::Usage;

/// Time between two blocks: short enough for a live page.
const BLOCK_EVERY: Duration = Duration::from_millis(250);
/// Number of steps after which a block is handed over at once.
const BLOCK_STEPS: usize = 1000;
/// Bytes of names and values after which a block is handed over at once: far below the coordinator's limit.
const BLOCK_BYTES: usize = 4 << 20;
/// Time between two telemetry reports.
const SYSTEM_EVERY: Duration = Duration::from_secs(1);

/// A part of a step, for the measurement of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Data,
    Forward,
    Backward,
    Reduction,
    Optimizer,
    Record,
    Checkpoint,
    Evaluation,
    Other,
}

const PHASES: [(Phase, &str); 9] = [
    (Phase::Data, "data"),
    (Phase::Forward, "forward"),
    (Phase::Backward, "backward"),
    (Phase::Reduction, "reduction"),
    (Phase::Optimizer, "optimizer"),
    (Phase::Record, "record"),
    (Phase::Checkpoint, "checkpoint"),
    (Phase::Evaluation, "evaluation"),
    (Phase::Other, "other"),
];

/// Times are indexed by the position of the phase in the table.
const _: () = {
    let mut place = 0;
    while place < PHASES.len() {
        assert!(PHASES[place].0 as usize == place, "`PHASES` names the phases in the order of the enum");
        place += 1;
    }
};

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepNumbers {
    /// Steps completed, including this one.
    pub(crate) step: u64,
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) lr: f64,
    /// Digest of the sample positions of all ranks; only in process 0.
    pub(crate) positions: u64,
    /// Digest of the bytes of the samples of all ranks; only in process 0.
    pub(crate) contents: u64,
}

/// The pass in which a model's code logged a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogSource {
    /// A training pass of this rank; `None` if the run has only one rank.
    Rank(Option<u32>),
    /// An evaluation.
    Evaluation,
}

/// Why a value that a model's code logged cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The name belongs to a series that Lockstep itself writes.
    #[error(
        "the model's code logs `{0}`, but Lockstep itself writes a series of that name: use another name, for example `own/{0}`"
    )]
    Name(String),
    /// libtorch failed in a call of Lockstep's C++ shim.
    #[error("libtorch failed")]
    Shim(#[from] lockstep_tch_ext::Error),
}

/// Collects reports, and hands them over to the outbox in blocks.
#[derive(Debug)]
pub(crate) struct Reporter {
    outbox: Outbox,
    process: u32,
    batch: u64,
    /// Number of tokens of a sample; `None` if samples are not tokens.
    tokens: Option<u64>,
    device: Device,
    block: ReportBlock,
    media: Option<MediaWriter>,
    /// Bytes of names and values in the block, of reports that can be large in one step.
    block_bytes: usize,
    /// The series of the next block.
    numbers: BTreeMap<SeriesKey, Vec<Point>>,
    handed_over: Instant,
    record: RecordPosition,
    clock: Clock,
    system: System,
}

/// The time spent on each phase: every moment belongs to one phase.
#[derive(Debug)]
struct Clock {
    lap: Instant,
    phases: [Duration; PHASES.len()],
    step: Instant,
}

#[derive(Debug)]
struct System {
    since: Instant,
    steps: u64,
    usage: Usage,
}

impl Reporter {
    /// For the process with index `process`. `record` is the record's position of a resumed run; `None` for a new run.
    pub(crate) fn new(
        outbox: Outbox,
        process: u32,
        batch: u64,
        device: Device,
        record: Option<RecordPosition>,
    ) -> Self {
        let now = Instant::now();
        Self {
            outbox,
            process,
            batch,
            tokens: None,
            device,
            block: ReportBlock { process, ..ReportBlock::default() },
            block_bytes: 0,
            media: None,
            numbers: BTreeMap::new(),
            handed_over: now,
            record: record.unwrap_or_else(|| RecordPosition { steps: 0, digest: chain_start() }),
            clock: Clock { lap: now, phases: Default::default(), step: now },
            system: System { since: now, steps: 0, usage: Usage::now() },
        }
    }

    /// Sets the shape of samples, for the throughput in tokens.
    pub(crate) fn samples_are(&mut self, shape: &SampleShape) {
        self.tokens = (shape.kind == InputKind::Tokens).then(|| shape.input.iter().product::<i64>() as u64);
    }

    /// Counts the time since the last call as spent on `phase`, and reports progress.
    pub(crate) fn spent(&mut self, phase: Phase) {
        progress::advance();
        let now = Instant::now();
        self.clock.phases[phase as usize] += now - self.clock.lap;
        self.clock.lap = now;
    }

    /// Reports a completed step. Process 0 also adds it to the record, with `fingerprints` if they were taken.
    pub(crate) fn step(&mut self, numbers: &StepNumbers, fingerprints: Option<Fingerprints>) {
        let now = Instant::now();
        if self.process == 0 {
            let [loss, grad_norm, lr] = [numbers.loss, numbers.grad_norm, numbers.lr].map(f64::to_bits);
            let StepNumbers { step, positions, contents, .. } = *numbers;
            let fingerprint = fingerprints.as_ref().map_or(0, Fingerprints::digest);
            let evidence = Evidence { step, loss, grad_norm, lr, positions, fingerprint, contents };
            if self.block.steps.is_empty() {
                self.block.record_before = self.record.digest.as_bytes().to_vec();
            }
            self.record = RecordPosition { steps: self.record.steps + 1, digest: evidence.chain(&self.record.digest) };
            let micros = (now - self.clock.step).as_micros() as u64;
            let at_ms = now_ms();
            self.block.steps.push(StepReport {
                step,
                loss,
                grad_norm,
                lr,
                micros,
                positions,
                fingerprint,
                at_ms,
                contents,
            });
            if let Some(Fingerprints { names, sums }) = fingerprints {
                self.block_bytes += bytes_of(&names, 1);
                self.block.fingerprints.push(FingerprintReport { step, names, sums });
            }
        }
        self.clock.step = now;
        self.system.steps += 1;
        if now - self.system.since >= SYSTEM_EVERY {
            self.report_system(numbers.step, now);
        }
        let full = self.block.steps.len() >= BLOCK_STEPS || self.block_bytes >= BLOCK_BYTES;
        if full || now - self.handed_over >= BLOCK_EVERY {
            self.hand_over();
        }
    }

    /// Reports the model. To be called in process 0 only.
    pub(crate) fn model(&mut self, model: ModelReport) {
        self.block.model = Some(model);
    }

    /// Reports the gradient norms of the parameters. To be called in process 0 only.
    pub(crate) fn layers(&mut self, step: u64, names: Vec<String>, grad_norms: Vec<f64>) {
        let at_ms = now_ms();
        self.block_bytes += bytes_of(&names, 1);
        self.block.layers.push(LayerReport { step, names, grad_norms, at_ms, ..LayerReport::default() });
    }

    /// Reports the norms of some parameters and of their updates.
    pub(crate) fn updates(&mut self, step: u64, names: Vec<String>, weight_norms: Vec<f64>, update_norms: Vec<f64>) {
        let at_ms = now_ms();
        self.block_bytes += bytes_of(&names, 2);
        self.block.layers.push(LayerReport { step, names, grad_norms: vec![], at_ms, weight_norms, update_norms });
    }

    /// Adds a point to a series; `part` is a rank.
    pub(crate) fn number(&mut self, name: &str, part: Option<u32>, step: u64, value: f64) {
        let key = SeriesKey { name: name.to_owned(), part };
        self.numbers.entry(key).or_default().push(Point { step, at_ms: now_ms(), value });
    }

    /// Reports a distribution.
    pub(crate) fn histogram(&mut self, name: String, step: u64, histogram: &Histogram) {
        let mut last = 0;
        let difference = |&(bin, _): &(u16, u64)| u32::from(bin) - std::mem::replace(&mut last, u32::from(bin));
        self.block.histograms.push(HistogramReport {
            name,
            step,
            at_ms: now_ms(),
            count: histogram.count,
            zeros: histogram.zeros,
            nans: histogram.nans,
            infs: histogram.infs,
            min: histogram.min,
            max: histogram.max,
            mean: histogram.mean,
            std: histogram.std,
            bins: histogram.bins.iter().map(difference).collect(),
            counts: histogram.bins.iter().map(|(_, count)| *count).collect(),
        });
    }

    /// Reports the result of an evaluation. To be called in process 0 only.
    pub(crate) fn eval(&mut self, report: EvalReport) {
        self.block.evals.push(EvalReport { at_ms: now_ms(), ..report });
    }

    /// Sets the writer of images, texts and files; without one they are dropped.
    pub(crate) fn write_media_with(&mut self, media: Option<MediaWriter>) {
        self.media = media;
    }

    /// Takes the values that the model's code has logged since the last call, and reports them.
    pub(crate) fn logged(&mut self, step: u64, source: LogSource) -> Result<(), LogError> {
        for (name, logged) in take_logged() {
            let taken = match &logged {
                Logged::Number(_) => is_own_series(&name),
                Logged::Distribution(_) => is_own_histogram(&name),
                Logged::Image(_) | Logged::Text(_) | Logged::Artifact(_) => false,
            };
            if taken {
                return Err(LogError::Name(name));
            }
            match (logged, source) {
                // An evaluation logs one number for each batch of the same step. A program's metrics are reported as means instead.
                (Logged::Number(_), LogSource::Evaluation) => {}
                (Logged::Number(value), LogSource::Rank(part)) => self.number(&name, part, step, value),
                (Logged::Distribution(tensor), _) => self.histogram(name, step, &histogram_of(&tensor)?),
                (Logged::Image(image), _) => self.write_media(name, step, Content::Image(image)),
                (Logged::Text(text), _) => self.write_media(name, step, Content::Text(text)),
                (Logged::Artifact(path), _) => self.write_media(name, step, Content::File(path)),
            }
        }
        Ok(())
    }

    fn write_media(&mut self, name: String, step: u64, content: Content) {
        if let Some(media) = &self.media {
            media.write(Media { name, step, at_ms: now_ms(), process: self.process, content });
        }
    }

    /// Length and digest of the record.
    pub(crate) fn record(&self) -> &RecordPosition {
        &self.record
    }

    /// Puts the collected reports into the outbox. To be called before a checkpoint, so that its share comes after the steps that it
    /// covers.
    pub(crate) fn hand_over(&mut self) {
        self.handed_over = Instant::now();
        self.block_bytes = 0;
        let numbers = std::mem::take(&mut self.numbers);
        self.block.series.extend(numbers.iter().map(|(key, points)| Series::of_points(key, points)));
        let next = ReportBlock { process: self.process, ..ReportBlock::default() };
        if self.block == next {
            return;
        }
        self.outbox.push(std::mem::replace(&mut self.block, next));
    }

    /// Sends another message, after all collected reports.
    pub(crate) fn say(&mut self, body: Body) {
        self.hand_over();
        self.outbox.push(body);
    }

    /// Reports the last telemetry, hands over all reports, and waits until all media are stored.
    pub(crate) fn finish(&mut self, step: u64) {
        if self.system.steps > 0 {
            self.report_system(step, Instant::now());
        }
        self.hand_over();
        // Dropping the writer waits until everything is stored.
        self.media = None;
    }

    fn report_system(&mut self, step: u64, now: Instant) {
        let (steps, wall) = (self.system.steps as f64, (now - self.system.since).as_secs_f64());
        let usage = Usage::now();
        let rate = if wall > 0.0 { steps / wall } else { 0.0 };
        if self.process == 0 {
            self.number("throughput/steps", None, step, rate);
            if let Some(tokens) = self.tokens {
                self.number("throughput/tokens", None, step, rate * (self.batch * tokens) as f64);
            }
        }
        let micros = |(phase, name): &(Phase, &str)| {
            let spent = std::mem::take(&mut self.clock.phases[*phase as usize]);
            ((*name).to_owned(), spent.as_secs_f64() * 1e6 / steps)
        };
        self.block.systems.push(SystemReport {
            step,
            samples_per_second: rate * self.batch as f64,
            phase_micros: PHASES.iter().map(micros).collect(),
            rss_bytes: usage.rss_bytes,
            cpu_share: usage.cpu_share(&self.system.usage),
            device: device_report(self.device),
            at_ms: now_ms(),
            minor_faults: usage.minor_faults,
            major_faults: usage.major_faults,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
        });
        self.system = System { since: now, steps: 0, usage };
    }
}

/// Bytes of `names` with `numbers` numbers each.
fn bytes_of(names: &[String], numbers: usize) -> usize {
    names.iter().map(|name| name.len() + 8 * numbers).sum()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;
