//! Detects steady growth in a sequence of windows, and tells a leak from a start-up, a sawtooth and a jump.
//!
//! The examined stretch is cut into five pieces. It grows steadily if all of these hold:
//!
//! - The medians of the pieces rise from piece to piece by at least [`EVEN`] of the mean rise, and their minima by at least
//!   [`LOW`] of it: a single jump is not growth.
//! - The rise is much larger than the noise, and a line fits it better than two jumps do.
//! - The rise at the end is not slower than that at the beginning or before the stretch: an allocator that warms up levels off.
//! - The stretch ends above all earlier windows: the teeth of a sawtooth do not.

use crate::history::Span;
use crate::robust::{median, noise, slope};

/// Number of pieces into which a stretch is cut.
const PIECES: usize = 5;

/// Smallest number of windows of a stretch.
pub(crate) const FEWEST: usize = 2 * PIECES;

/// Smallest rise between two pieces, as a share of the mean rise.
const EVEN: f64 = 0.4;

/// Smallest rise of the minimum between two pieces, as a share of the mean rise.
const LOW: f64 = 0.2;

/// Smallest total rise, in standard errors of the difference of two pieces.
const SURE: f64 = 5.5;

/// Smallest total rise, as a multiple of the scatter of the tenths of the stretch about a line: a random walk is not steady.
const STRAIGHT: f64 = 7.0;

/// Smallest total rise, as a share of the range within a window: a sawtooth with a period close to the window's length beats slowly.
const WITHIN: f64 = 0.5;

/// Share of the first rise that the last rise may lack, and share of the previous stretch's rise that this stretch may lack.
const LEVELS_OFF: f64 = 0.12;

/// Largest number of points from which the slope is computed: the number of pairs grows with its square.
const SLOPE_POINTS: usize = 48;

/// A steady growth.
#[derive(Clone, Copy)]
pub(crate) struct Growth {
    /// The first step of the stretch.
    pub(crate) from: u32,
    pub(crate) per_step: f64,
    /// Difference between the medians of the first and the last piece.
    pub(crate) rise: f64,
}

/// The noise of a window, estimated from all windows: a few would give no reliable estimate.
pub(crate) fn noise_of(windows: &[Span]) -> f64 {
    noise(&windows.iter().map(Span::value).collect::<Vec<_>>())
}

/// Rise from the first piece to the last, and its standard error.
pub(crate) fn rise(stretch: &[Span], noise: f64) -> (f64, f64) {
    let pieces = medians(stretch, PIECES);
    // 1.25: ratio of the standard errors of a median and a mean.
    let error = 1.25 * noise * (2.0 * PIECES as f64 / stretch.len() as f64).sqrt();
    (pieces[PIECES - 1] - pieces[0], error)
}

/// The growth of the longest stretch that grows by at least `least` over at least `steps` steps: all windows, or their last half,
/// quarter or eighth.
pub(crate) fn steady(windows: &[Span], least: f64, steps: u32) -> Option<Growth> {
    let noise = noise_of(windows);
    [1, 2, 4, 8].into_iter().find_map(|parts| {
        let (before, stretch) = windows.split_at(windows.len() - windows.len() / parts);
        let long = stretch.len() >= FEWEST && stretch[stretch.len() - 1].to - stretch[0].from >= steps;
        long.then(|| grows(stretch, before, noise, least)).flatten()
    })
}

fn grows(stretch: &[Span], before: &[Span], noise: f64, least: f64) -> Option<Growth> {
    let (rise, error) = rise(stretch, noise);
    let within = median(stretch.iter().map(|window| f64::from(window.high - window.low)));
    if rise < least || rise < SURE * error || rise < WITHIN * within {
        return None;
    }
    let pieces = medians(stretch, PIECES);
    let rises: Vec<f64> = pieces.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = rise / rises.len() as f64;
    let (first, last) = (rises[0], rises[rises.len() - 1]);
    // The minima must rise, too: those of a sawtooth stay level or jump.
    let lows: Vec<f64> = cut(stretch, PIECES)
        .map(|piece| piece.iter().map(|window| f64::from(window.low)).fold(f64::INFINITY, f64::min))
        .collect();
    let mut low_rises = lows.windows(2).map(|pair| pair[1] - pair[0]);
    let even = rises.iter().all(|&rise| rise >= EVEN * mean) && low_rises.all(|rise| rise >= LOW * mean);
    // The linear contrast that detects a bend best. The error of one piece is that of a difference divided by the root of two.
    let bend: f64 = [2.0, -1.0, -2.0, -1.0, 2.0].iter().zip(&pieces).map(|(weight, piece)| weight * piece).sum();
    let bends = -bend > 7.0_f64.sqrt() * error && first - last > LEVELS_OFF * first;
    // The stretch must not be the end of a faster growth: compare it with an equally long stretch before it.
    let earlier = &before[before.len().saturating_sub(stretch.len())..];
    let slows = earlier.len() >= PIECES && self::rise(earlier, 0.0).0 > (1.0 + LEVELS_OFF) * rise;
    let highest = before.iter().map(Span::value).fold(f64::MIN, f64::max);
    if !even || bends || slows || pieces[PIECES - 1] <= highest {
        return None;
    }
    let tenths = medians(stretch, 2 * PIECES);
    let line = rise * PIECES as f64 / (PIECES - 1) as f64 / tenths.len() as f64;
    let off: Vec<f64> = tenths.iter().enumerate().map(|(at, value)| value - line * at as f64).collect();
    let centre = median(off.iter().copied());
    let scatter = (off.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / off.len() as f64).sqrt();
    if rise < STRAIGHT * scatter {
        return None;
    }
    if jumps_explain(stretch) {
        return None;
    }
    let points: Vec<(f64, f64)> = stretch
        .iter()
        .step_by(stretch.len().div_ceil(SLOPE_POINTS))
        .map(|span| (f64::from(span.from.midpoint(span.to)), span.value()))
        .collect();
    Some(Growth { from: stretch[0].from, per_step: slope(&points), rise })
}

/// Whether three constant levels with two jumps fit the windows better than a line does.
fn jumps_explain(stretch: &[Span]) -> bool {
    let count = stretch.len();
    let mean = stretch.iter().map(Span::value).sum::<f64>() / count as f64;
    let values: Vec<f64> = stretch.iter().map(|window| window.value() - mean).collect();
    let centre = (count - 1) as f64 / 2.0;
    let (along, across) = values.iter().enumerate().fold((0.0, 0.0), |(along, across), (at, value)| {
        let at = at as f64 - centre;
        (along + at * value, across + at * at)
    });
    let line = along * along / across;
    let mut sums = vec![0.0];
    for value in &values {
        sums.push(sums[sums.len() - 1] + value);
    }
    let level = |from: usize, to: usize| (sums[to] - sums[from]).powi(2) / (to - from) as f64;
    // Compares the explained part of the variation about the mean. Each level has at least two windows.
    (2..count - 3).any(|first| {
        (first + 2..count - 1).any(|second| level(0, first) + level(first, second) + level(second, count) > line)
    })
}

/// The step at which growth began: where a level line that becomes a rising one fits best, without the first tenth (start-up).
pub(crate) fn onset(windows: &[Span]) -> u32 {
    let windows = &windows[windows.len() / 10..];
    let at = |window: &Span| f64::from(window.from.midpoint(window.to));
    let mean = windows.iter().map(Span::value).sum::<f64>() / windows.len() as f64;
    let total: f64 = windows.iter().map(|window| (window.value() - mean).powi(2)).sum();
    let unexplained = |from: &Span| {
        let rises = || windows.iter().map(|window| (at(window) - at(from)).max(0.0));
        let centre = rises().sum::<f64>() / windows.len() as f64;
        let along: f64 = rises().zip(windows).map(|(rise, window)| (rise - centre) * (window.value() - mean)).sum();
        let across: f64 = rises().map(|rise| (rise - centre).powi(2)).sum();
        total - along.max(0.0).powi(2) / across.max(f64::MIN_POSITIVE)
    };
    let candidates = &windows[..windows.len().saturating_sub(2)];
    candidates
        .iter()
        .map(|from| (unexplained(from), from.from))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(0, |best| best.1)
}

/// Cuts `stretch` into `pieces` parts of equal length; a part has at least one window.
fn cut(stretch: &[Span], pieces: usize) -> impl Iterator<Item = &[Span]> {
    (0..pieces).map(move |piece| {
        let (from, to) = (piece * stretch.len() / pieces, (piece + 1) * stretch.len() / pieces);
        &stretch[from..to.max(from + 1)]
    })
}

/// The medians of `pieces` equal parts.
fn medians(stretch: &[Span], pieces: usize) -> Vec<f64> {
    cut(stretch, pieces).map(|piece| median(piece.iter().map(Span::value))).collect()
}
