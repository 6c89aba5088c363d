//! Series: the numbers and distributions that are tracked for a run besides its record, by name and step.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Identifies a series of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// Such as `loss`, `eval/accuracy`, `grad_norm/<parameter>` or `process/rss_bytes`.
    pub name: String,
    /// Index of the process or rank if each has a series of this name; `None` if there is one series.
    pub part: Option<u32>,
}

impl SeriesKey {
    /// A series that is not split by process or rank.
    pub fn whole(name: impl Into<String>) -> Self {
        Self { name: name.into(), part: None }
    }

    /// The series `name` of process or rank `part`.
    pub fn part(name: impl Into<String>, part: u32) -> Self {
        Self { name: name.into(), part: Some(part) }
    }
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Some(part) => write!(f, "{}[{part}]", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Names of series that Lockstep itself records.
const OWN: [&str; 4] = ["grad_norm", "loss", "lr", "step_seconds"];

/// Prefixes of the other series that Lockstep itself records.
const OWN_PREFIXES: [&str; 10] = [
    "device/",
    "eval/",
    "grad_norm/",
    "importance/",
    "not_finite/",
    "phase/",
    "process/",
    "throughput/",
    "update_ratio/",
    "weight_norm/",
];

/// Prefixes of the distributions that Lockstep itself records.
const OWN_HISTOGRAMS: [&str; 3] = ["activation/", "grad/", "weight/"];

/// Whether `name` is reserved for a series that Lockstep itself records. A program must not log values under such a name.
pub fn is_own_series(name: &str) -> bool {
    OWN.contains(&name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether `name` is reserved for a distribution that Lockstep itself records.
pub fn is_own_histogram(name: &str) -> bool {
    OWN_HISTOGRAMS.iter().any(|prefix| name.starts_with(prefix))
}

/// One value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Optimizer steps completed.
    pub step: u64,
    /// Time of measurement, in milliseconds of Unix time.
    pub at_ms: u64,
    /// The measured value; may be infinite or NaN.
    pub value: f64,
}

/// The distribution of a tensor's elements, with four bins for each power of two.
///
/// An element's bin is the upper eleven bits of its `f32`: sign, exponent, and two bits of the fraction. So the range of the values
/// need not be known in advance, bins are the same in all processes, and histograms can be added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Optimizer steps completed.
    pub step: u64,
    /// Time of measurement, in milliseconds of Unix time.
    pub at_ms: u64,
    /// Number of elements, including zeros, infinities and NaNs.
    pub count: u64,
    /// Elements that are zero or denormal.
    pub zeros: u64,
    /// Elements that are NaN.
    pub nans: u64,
    /// Elements that are infinite.
    pub infs: u64,
    /// Minimum of the finite elements; 0 if there is none.
    pub min: f64,
    /// Maximum of the finite elements; 0 if there is none.
    pub max: f64,
    /// Mean of the finite elements; 0 if there is none.
    pub mean: f64,
    /// Population standard deviation of the finite elements; 0 if there is none.
    pub std: f64,
    /// Pairs of a bin and its number of elements, by ascending bin. Zeros, infinities and NaNs are in no bin.
    pub bins: Vec<(u16, u64)>,
}

/// The lower bits of an `f32`, which do not belong to its bin.
const FRACTION_BITS: u32 = 21;

/// The sign bit of a bin; each sign has this many bins.
const SIGN_BIN: u16 = 1 << 10;

/// The bin of `value`: the upper eleven bits of its `f32`.
pub fn bin_of(value: f32) -> u16 {
    (value.to_bits() >> FRACTION_BITS) as u16
}

/// The lower and the upper bound of the values in `bin`.
pub fn bin_range(bin: u16) -> (f64, f64) {
    let magnitude = |bin: u16| {
        let value = f64::from(f32::from_bits(u32::from(bin) << FRACTION_BITS));
        // The bound above the last finite bin is 2^128.
        if value.is_finite() { value } else { 2.0_f64.powi(128) }
    };
    let positive = bin & (SIGN_BIN - 1);
    let (near, far) = (magnitude(positive), magnitude(positive + 1));
    if bin & SIGN_BIN == 0 { (near, far) } else { (-far, -near) }
}

impl Histogram {
    /// Edges and counts for display, in ascending order of value. Neighbouring bins are merged in pairs until at most `most` remain.
    /// Zeros have a bin of their own, between the nearest edges. Empty bins fill gaps, so there may be more than `most` bars.
    /// `edges` has one element more than `counts`; both are empty if no element is finite.
    pub fn bars(&self, most: usize) -> (Vec<f64>, Vec<u64>) {
        let mut bars: Vec<(f64, f64, u64)> = self
            .bins
            .iter()
            .map(|&(bin, count)| {
                let (low, high) = bin_range(bin);
                (low, high, count)
            })
            .collect();
        bars.sort_by(|a, b| a.0.total_cmp(&b.0));
        if self.zeros > 0 {
            let at = bars.partition_point(|bar| bar.1 <= 0.0);
            let low = at.checked_sub(1).map_or(0.0, |before| bars[before].1);
            let high = bars.get(at).map_or(0.0, |after| after.0);
            let (low, high) =
                if low < high { (low, high) } else { (low - f64::MIN_POSITIVE, high + f64::MIN_POSITIVE) };
            bars.insert(at, (low, high, self.zeros));
        }
        while bars.len() > most.max(1) {
            bars = bars
                .chunks(2)
                .map(|two| two[1..].iter().fold(two[0], |a, b| (a.0, b.1, a.2.saturating_add(b.2))))
                .collect();
        }
        let (mut edges, mut counts) = (Vec::new(), Vec::new());
        for (low, high, count) in bars {
            match edges.last() {
                // An empty bin fills the gap between two bins.
                Some(&last) if last < low => {
                    edges.push(low);
                    counts.push(0);
                }
                Some(_) => {}
                None => edges.push(low),
            }
            edges.push(high);
            counts.push(count);
        }
        (edges, counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bin() {
        for value in [1.0_f32, 1.24, 1.25, 1.99, 2.0, -1.0, -0.3, 1e-30, -1e30, f32::MAX, f32::MIN_POSITIVE] {
            let (low, high) = bin_range(bin_of(value));
            let exact = f64::from(value);
            assert!(low <= exact && exact <= high && high / low < 4.0, "{value}: {low}..{high}");
        }
        assert_eq!(bin_range(bin_of(1.3)), (1.25, 1.5));
        assert_eq!(bin_range(bin_of(-1.3)), (-1.5, -1.25));
    }

    #[test]
    fn bars_ascend_and_hold_all_that_is_finite() {
        let values = [-3.0_f32, -0.1, 0.11, 0.12, 5.0, 5.1, 900.0];
        let mut bins = std::collections::BTreeMap::new();
        for value in values {
            *bins.entry(bin_of(value)).or_insert(0) += 1;
        }
        let histogram = Histogram { count: 9, zeros: 2, bins: bins.into_iter().collect(), ..Histogram::default() };
        for most in [100, 5, 1] {
            let (edges, counts) = histogram.bars(most);
            assert_eq!(edges.len(), counts.len() + 1);
            assert!(edges.windows(2).all(|pair| pair[0] < pair[1]), "{edges:?}");
            assert_eq!(counts.iter().sum::<u64>(), 9);
            assert!(edges[0] <= -3.0 && edges[edges.len() - 1] >= 900.0);
        }
        assert_eq!(Histogram::default().bars(10), (vec![], vec![]));
    }
}
