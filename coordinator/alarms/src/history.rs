//! The history of a series in three forms. Each is bounded and ascends by step; a rollback truncates it.
//!
//! Values are `f32` and steps `u32`: a run has fewer than four billion steps, and no rule needs more digits. All values are finite:
//! others go only to the detector of `NotFinite`, because JSON, in which a watch may be saved, has no such numbers.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Largest number of points of a [`Trail`], and how many of its first and newest points are never thinned.
const TRAIL: usize = 80;
pub(crate) const START: usize = 8;
const NEWEST: usize = 32;

/// Smallest gap between two thinned points, as a share of their age: about forty of a million points remain.
const GAP: f64 = 0.25;

/// The step as stored in histories; `u32::MAX` if it is larger.
pub(crate) fn short(step: u64) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

/// All of the first and the newest points; the points between them are the sparser the older they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Trail<V>(Vec<(u32, V)>);

impl<V: Copy> Trail<V> {
    pub(crate) fn push(&mut self, step: u32, value: V) {
        if self.0.len() == TRAIL {
            let mut gap = GAP;
            while self.0.len() > TRAIL - START {
                self.thin(step, gap);
                gap *= 1.5;
            }
        }
        self.0.push((step, value));
    }

    fn thin(&mut self, now: u32, gap: f64) {
        let (mut at, newest, mut kept) = (0, self.0.len() - NEWEST, 0);
        self.0.retain(|point| {
            at += 1;
            let far = f64::from(point.0 - kept) >= gap * f64::from(now - point.0);
            let keep = at <= START || at > newest || far;
            if keep {
                kept = point.0;
            }
            keep
        });
    }

    pub(crate) fn points(&self) -> &[(u32, V)] {
        &self.0
    }

    /// The newest points, at most `most`.
    pub(crate) fn newest(&self, most: usize) -> &[(u32, V)] {
        &self.0[self.0.len().saturating_sub(most)..]
    }

    /// The value of the last point at or before `step`, or else of the first point.
    pub(crate) fn at(&self, step: u32) -> Option<V> {
        let after = self.0.partition_point(|point| point.0 <= step);
        self.0.get(after.saturating_sub(1)).map(|point| point.1)
    }

    pub(crate) fn rewind(&mut self, step: u32) {
        self.0.truncate(self.0.partition_point(|point| point.0 <= step));
    }
}

/// Consecutive points, summarised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// Step of the first point.
    pub(crate) from: u32,
    /// Step of the last point.
    pub(crate) to: u32,
    pub(crate) value: f32,
    /// Minimum and maximum of the values of its blocks.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Span {
    pub(crate) fn value(&self) -> f64 {
        f64::from(self.value)
    }

    /// Joins this span and the next one, with the given value.
    fn and(self, next: Self, value: f32) -> Self {
        Self { from: self.from, to: next.to, value, low: self.low.min(next.low), high: self.high.max(next.high) }
    }
}

/// Medians of the newest blocks of `size` points each, at most `keep` of them. A single outlier does not move a block's value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Blocks {
    size: usize,
    keep: usize,
    pending: Vec<(u32, f32)>,
    done: VecDeque<Span>,
}

impl Blocks {
    pub(crate) fn new(size: usize, keep: usize) -> Self {
        Self { size, keep, pending: Vec::new(), done: VecDeque::new() }
    }

    /// Adds a point; returns the block that it completes.
    pub(crate) fn push(&mut self, step: u32, value: f32) -> Option<Span> {
        self.pending.push((step, value));
        if self.pending.len() < self.size {
            return None;
        }
        let middle = self.size / 2;
        let (from, to) = (self.pending[0].0, step);
        self.pending.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
        let value = if self.size.is_multiple_of(2) {
            self.pending[middle - 1].1.midpoint(self.pending[middle].1)
        } else {
            self.pending[middle].1
        };
        self.pending.clear();
        let span = Span { from, to, value, low: value, high: value };
        if self.keep > 0 {
            if self.done.len() == self.keep {
                self.done.pop_front();
            }
            self.done.push_back(span);
        }
        Some(span)
    }

    pub(crate) fn len(&self) -> usize {
        self.done.len()
    }

    /// The block of this age; the newest has age 0.
    pub(crate) fn back(&self, age: usize) -> Option<Span> {
        self.done.len().checked_sub(age + 1).map(|at| self.done[at])
    }

    /// The values of the newest `most` blocks that have at least this age, the oldest first.
    pub(crate) fn before(&self, age: usize, most: usize) -> Vec<f64> {
        let end = self.done.len().saturating_sub(age);
        self.done.range(end.saturating_sub(most)..end).map(Span::value).collect()
    }

    pub(crate) fn rewind(&mut self, step: u32) {
        self.pending.retain(|point| point.0 <= step);
        self.done.retain(|span| span.to <= step);
    }
}

/// The whole run in fewer than `keep` windows of equal length, each the mean of its blocks. At `keep` windows, pairs are merged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Windows {
    keep: usize,
    /// Number of blocks of a window.
    width: u32,
    /// The first block of the series.
    first: Option<Span>,
    /// The incomplete window, whose value is the sum of its blocks, and their number.
    open: Option<(Span, u32)>,
    done: Vec<Span>,
}

impl Windows {
    pub(crate) fn new(keep: usize, width: u32) -> Self {
        Self { keep, width, first: None, open: None, done: Vec::new() }
    }

    /// Adds a block; returns whether it completes a window.
    pub(crate) fn push(&mut self, block: Span) -> bool {
        self.first.get_or_insert(block);
        let (open, blocks) = match self.open.take() {
            Some((open, blocks)) => (open.and(block, open.value + block.value), blocks + 1),
            None => (block, 1),
        };
        if blocks < self.width {
            self.open = Some((open, blocks));
            return false;
        }
        self.done.push(Span { value: open.value / blocks as f32, ..open });
        if self.done.len() == self.keep {
            self.done =
                self.done.chunks(2).map(|two| two[0].and(two[1], two[0].value.midpoint(two[1].value))).collect();
            self.width *= 2;
        }
        true
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.done
    }

    /// Number of blocks of each window.
    pub(crate) fn width(&self) -> usize {
        self.width as usize
    }

    /// The value of the first block, which is never merged with later ones.
    pub(crate) fn first(&self) -> Option<f64> {
        self.first.map(|span| span.value())
    }

    pub(crate) fn rewind(&mut self, step: u32) {
        self.first = self.first.filter(|span| span.to <= step);
        self.open = self.open.filter(|open| open.0.to <= step);
        self.done.retain(|span| span.to <= step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_keeps_the_first_and_the_newest_and_is_cut() {
        let mut trail = Trail::default();
        for step in 1..=10_000_u32 {
            trail.push(step, step as f32);
        }
        assert!(trail.points().len() <= TRAIL && trail.points()[START - 1].0 == START as u32);
        assert!(trail.points()[START..].windows(2).all(|pair| pair[1].0 - pair[0].0 <= 4000));
        assert!(trail.points()[START..].iter().filter(|point| point.0 < 9900).count() > 8);
        assert!(trail.newest(16).iter().map(|point| point.0).eq(9985..=10_000));
        assert!(trail.points().windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!((trail.at(9000).unwrap() - 9000.0).abs() < 400.0);
        trail.rewind(9990);
        assert_eq!(trail.newest(1)[0].0, 9990);
        assert_eq!(trail.at(9989), Some(9989.0));
    }

    #[test]
    fn blocks_are_medians_and_windows_hold_the_whole_run() {
        let (mut blocks, mut windows) = (Blocks::new(4, 3), Windows::new(8, 1));
        for step in 1..=400_u32 {
            let value = if step % 4 == 0 { 1e9 } else { 7.0 };
            if let Some(span) = blocks.push(step, value) {
                assert_eq!(span.value, 7.0);
                windows.push(span);
            }
        }
        assert_eq!((blocks.len(), blocks.back(0).map(|span| (span.from, span.to))), (3, Some((397, 400))));
        assert!(windows.spans().len() < 8 && windows.spans()[0].from == 1);
        assert!(windows.spans().windows(2).all(|pair| pair[0].to + 1 == pair[1].from));
        windows.rewind(200);
        blocks.rewind(398);
        assert!(windows.spans().iter().all(|span| span.to <= 200));
        assert_eq!(blocks.back(0).map(|span| span.to), Some(396));
    }
}
