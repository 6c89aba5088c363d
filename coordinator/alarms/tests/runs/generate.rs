//! Made-up runs: what a healthy one looks like in many shapes. Seeded, so that each replays bit for bit.

use lockstep_alarms::{Alarm, Watch};
use lockstep_common::series::{Histogram, Point, SeriesKey};

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub(crate) fn even(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.even()
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Of mean 0 and deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.even()).ln()).sqrt() * (std::f64::consts::TAU * self.even()).cos()
    }

    /// Around 1, by a factor of about `e^width`.
    pub(crate) fn factor(&mut self, width: f64) -> f64 {
        (width * self.normal()).exp()
    }
}

/// A watch that is fed by name.
pub(crate) struct Fed(pub(crate) Watch);

impl Fed {
    pub(crate) fn new() -> Self {
        Self(Watch::new(&layers()))
    }

    pub(crate) fn point(&mut self, name: &str, step: u64, value: f64) {
        self.0.point(&SeriesKey::whole(name), &Point { step, at_ms: ms(step), value });
    }

    pub(crate) fn part(&mut self, name: &str, part: u32, step: u64, value: f64) {
        self.0.point(&SeriesKey::part(name, part), &Point { step, at_ms: ms(step), value });
    }

    /// A histogram of so many elements and zeros.
    pub(crate) fn zeros(&mut self, name: &str, step: u64, count: u64, zeros: u64) {
        let histogram = Histogram { step, at_ms: ms(step), count, zeros, ..Histogram::default() };
        self.0.histogram(&SeriesKey::whole(name), &histogram);
    }

    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        self.0.alarms()
    }
}

/// Twenty steps a second.
pub(crate) fn ms(step: u64) -> u64 {
    1_700_000_000_000 + step * 50
}

pub(crate) const LAYERS: usize = 8;

pub(crate) fn weight(layer: usize) -> String {
    format!("l{layer}.weight")
}

pub(crate) fn layers() -> Vec<String> {
    (0..LAYERS).flat_map(|layer| [weight(layer), format!("l{layer}.bias")]).collect()
}

/// Shapes of healthy losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Exponential,
    PowerLaw,
    WarmupCosine,
    HeavyTails,
    SmallBatches,
    RateDrops,
    Grokking,
    Tiny,
    Restarts,
    NormRises,
    Negative,
}

pub(crate) const SHAPES: [Shape; 11] = [
    Shape::Exponential,
    Shape::PowerLaw,
    Shape::WarmupCosine,
    Shape::HeavyTails,
    Shape::SmallBatches,
    Shape::RateDrops,
    Shape::Grokking,
    Shape::Tiny,
    Shape::Restarts,
    Shape::NormRises,
    Shape::Negative,
];

/// A run's healthy loss and gradients.
pub(crate) struct Curve {
    pub(crate) shape: Shape,
    pub(crate) steps: u64,
    start: f64,
    floor: f64,
    pace: f64,
    width: f64,
    flat: f64,
    scales: Vec<f64>,
}

/// What a step shows.
pub(crate) struct Step {
    pub(crate) smooth: f64,
    pub(crate) loss: f64,
    pub(crate) rate: f64,
    pub(crate) norm: f64,
    /// What all layers' norms share: they are `norm_of(layer)` times it.
    pub(crate) common: f64,
}

impl Curve {
    pub(crate) fn new(shape: Shape, steps: u64, chance: &mut Chance) -> Self {
        let start = if shape == Shape::PowerLaw { chance.between(8.0, 11.0) } else { chance.between(0.7, 5.0) };
        Self {
            shape,
            steps,
            start,
            floor: start * if shape == Shape::Tiny { 1e-5 } else { chance.between(0.002, 0.35) },
            pace: steps as f64 * chance.between(0.02, 0.3),
            width: match shape {
                Shape::SmallBatches => chance.between(0.3, 0.8),
                _ => chance.between(0.01, 0.15),
            },
            flat: chance.between(100.0, 900.0),
            scales: (0..LAYERS).map(|_| chance.factor(0.8)).collect(),
        }
    }

    pub(crate) fn at(&self, step: u64, chance: &mut Chance) -> Step {
        let (at, end) = (step as f64, self.steps as f64);
        let decayed = |at: f64| self.floor + (self.start - self.floor) * (-at / self.pace).exp();
        let cosine = |part: f64| 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
        let cycle = (end / 3.0).ceil();
        let (smooth, rate) = match self.shape {
            Shape::PowerLaw => (self.start * (1.0 + at / 20.0).powf(-0.2), cosine(at / end)),
            Shape::WarmupCosine => {
                let warm = end / 10.0;
                let slow = (at / warm).min(1.0);
                (decayed(at * slow), if at < warm { at / warm } else { cosine((at - warm) / (end - warm)) })
            }
            Shape::RateDrops => {
                let drops = (at / cycle).floor();
                let level = self.floor + (self.start - self.floor) * 0.25_f64.powf(drops);
                let within = level - 0.75 * (level - self.floor) * (1.0 - (-(at % cycle) / (cycle / 20.0)).exp());
                (within, 0.1_f64.powf(drops))
            }
            Shape::Grokking => {
                let drop = 1.0 / (1.0 + ((self.flat - at) / 15.0).exp());
                (self.start * (0.8 + 0.2 * (-at / 50.0).exp()) * (1.0 - drop) + self.floor * drop, 1.0)
            }
            Shape::Restarts => {
                let within = at % cycle;
                let again = if at < cycle { 0.0 } else { 0.3 * (-within / (cycle / 8.0)).exp() };
                (decayed(at) + again * (self.start - decayed(at)), 0.02 + cosine(within / cycle))
            }
            Shape::Negative => (decayed(at) - 0.7 * self.start, 1.0),
            _ => (decayed(at), 1.0),
        };
        let heavy = self.shape == Shape::HeavyTails;
        let spike =
            if chance.even() < if heavy { 0.02 } else { 0.002 } { chance.factor(1.5).max(1.0) * 5.0 } else { 1.0 };
        let loss = if self.shape == Shape::Negative {
            smooth + self.start * self.width * chance.normal()
        } else {
            smooth * chance.factor(self.width) * if heavy && spike > 20.0 { 2.0 } else { 1.0 }
        };
        let level = match self.shape {
            Shape::NormRises => 0.5 * (1.0 + 4.0 * at / end),
            Shape::Grokking => 0.3 + 3.0 * (-((at - self.flat) / 40.0).powi(2)).exp(),
            Shape::Tiny => (smooth / self.start).sqrt() + 1e-4,
            _ => 0.3 + smooth.abs() / self.start,
        };
        let common = level * spike * chance.factor(if heavy { 0.6 } else { 0.3 });
        let norm = common * self.scales.iter().map(|scale| scale * scale).sum::<f64>().sqrt();
        Step { smooth, loss, rate: 1e-3 * rate, norm, common }
    }

    /// Gradient norm of a layer whose share is its own.
    pub(crate) fn norm_of(&self, layer: usize, common: f64, chance: &mut Chance) -> f64 {
        common * self.scales[layer] * chance.factor(0.2)
    }
}

/// Feeds what a healthy run records of layers: weights, updates, gradients; the gradient of bias 3 is none by algebra.
pub(crate) fn feed_layers(fed: &mut Fed, step: u64, rate: f64, norms: &[f64], chance: &mut Chance) {
    for (layer, norm) in norms.iter().enumerate() {
        let name = weight(layer);
        let size = 2.0 + layer as f64;
        fed.point(&format!("grad_norm/{name}"), step, *norm);
        fed.point(&format!("weight_norm/{name}"), step, size);
        fed.point(&format!("update_ratio/{name}"), step, rate * norm / size);
        let bias = if layer == 3 { 1e-9 } else { 0.2 };
        fed.point(&format!("grad_norm/l{layer}.bias"), step, norm * bias * chance.factor(0.3));
    }
}

/// Feeds a step's phases of one process, each with its noise; `data` and `work` are factors.
pub(crate) fn feed_phases(fed: &mut Fed, step: u64, process: u32, data: f64, work: f64, chance: &mut Chance) {
    let stall = if chance.even() < 0.02 { 8.0 } else { 1.0 };
    let phases =
        [("data", 1.5 * data * stall), ("forward", 10.0 * work), ("backward", 20.0 * work), ("reduction", 6.0)];
    for (name, millis) in phases.into_iter().chain([("optimizer", 2.0), ("record", 0.2), ("other", 0.1)]) {
        fed.part(&format!("phase/{name}"), process, step, millis * 1e-3 * chance.factor(0.15));
    }
}
