//! Points added up for the eye.

use lockstep_common::series::Point;
use serde::{Deserialize, Serialize};

/// Consecutive points of a series as one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) first_step: u64,
    pub(crate) last_step: u64,
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
    /// Points in it.
    pub(crate) count: u64,
    /// Those with a finite value; the rest is about them.
    pub(crate) finite: u64,
    pub(crate) sum: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Bucket {
    /// One point.
    pub(crate) fn of(point: &Point) -> Self {
        let Point { step, at_ms, value } = *point;
        let finite = value.is_finite();
        Self {
            first_step: step,
            last_step: step,
            first_ms: at_ms,
            last_ms: at_ms,
            count: 1,
            finite: u64::from(finite),
            sum: if finite { value } else { 0.0 },
            min: if finite { value } else { f64::INFINITY },
            max: if finite { value } else { f64::NEG_INFINITY },
        }
    }

    /// Takes in what comes after it.
    pub(crate) fn add(&mut self, next: &Self) {
        self.last_step = next.last_step;
        self.last_ms = next.last_ms;
        self.count += next.count;
        self.finite += next.finite;
        self.sum += next.sum;
        self.min = self.min.min(next.min);
        self.max = self.max.max(next.max);
    }

    /// Of the finite values; no number if there is none.
    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.finite as f64
    }
}

/// `buckets` added up where neighbours fall into one `column`.
pub(crate) fn group(buckets: impl Iterator<Item = Bucket>, mut column: impl FnMut(&Bucket) -> u64) -> Vec<Bucket> {
    let mut grouped: Vec<Bucket> = Vec::new();
    let mut last = None;
    for bucket in buckets {
        let own = Some(column(&bucket));
        match grouped.last_mut() {
            Some(open) if own == last => open.add(&bucket),
            _ => grouped.push(bucket),
        }
        last = own;
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_counted_and_changes_no_mean() {
        let point = |step, value| Bucket::of(&Point { step, at_ms: 10 * step, value });
        let all = [point(1, 1.0), point(2, f64::NAN), point(3, 3.0), point(4, f64::INFINITY)];
        let grouped = group(all.into_iter(), |bucket| bucket.last_step / 4);
        assert_eq!(grouped.len(), 2);
        let first = grouped[0];
        assert_eq!((first.first_step, first.last_step, first.count, first.finite), (1, 3, 3, 2));
        assert_eq!((first.mean(), first.min, first.max), (2.0, 1.0, 3.0));
        assert!(grouped[1].mean().is_nan());
    }
}
