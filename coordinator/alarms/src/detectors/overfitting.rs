//! Overfitting: the loss on held-out data rises from its minimum while the loss on training data falls.
//!
//! Three consecutive evaluations must exceed the minimum by four times the noise of the evaluations, by a twentieth of the minimum,
//! and by a hundredth of the first training loss: the ratio of two tiny losses says nothing. The minimum is that of medians of
//! three, because the lowest of many noisy values is too low by chance. If the training loss does not fall by more than its noise
//! meanwhile, the whole run got worse, and that is not overfitting.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::history::Span;
use crate::robust::{self, figure, median};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Number of consecutive evaluations above the minimum.
const ROW: usize = 3;

/// Smallest number of evaluations from which the noise is estimated.
const ENOUGH: usize = 6;

const ADVICE: &[&str] = &[
    "use the checkpoint at the minimum, if there is one; end the next run there",
    "use more data or augmentation, weight decay or dropout, or a smaller model",
    "check that the held-out data comes from the same distribution as the training data",
];

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let (Some(eval), Some(train)) = (seen.of(Role::EvalLoss).next(), seen.of(Role::Loss).next()) else { return };
    let points = eval.trail.points();
    let values: Vec<f64> = points.iter().map(|point| f64::from(point.1)).collect();
    let smooth: Vec<f64> = values.windows(3).map(|three| median(three.iter().copied())).collect();
    let Some(low) = (0..smooth.len()).min_by(|&a, &b| smooth[a].total_cmp(&smooth[b])) else { return };
    // The median of three belongs to the step of the middle one.
    let (least, low, newest) = (smooth[low], low + 1, values[values.len() - 1]);
    let after = &points[low + 1..];
    if let Some(entry) = board.standing(Kind::Overfitting, None) {
        if newest < entry.level {
            board.end(Kind::Overfitting, None, points[points.len() - 1].0);
        }
        return;
    }
    if points.len() < ENOUGH || after.len() < ROW {
        return;
    }
    // Noise of the newest evaluations only: in the first descent differences are not noise.
    let noise = robust::noise(&values[values.len().saturating_sub(24)..]);
    let Some(start) = train.windows.first() else { return };
    let rise = (4.0 * noise).max(0.05 * least.abs()).max(0.01 * start.abs());
    let above = after[after.len() - ROW..].iter().all(|point| f64::from(point.1) > least + rise);
    let Some((then, now)) = training(train, points[low].0) else { return };
    let wild = robust::noise(&train.blocks.before(0, 32));
    if !above || now > then - wild.max(0.02 * then.abs()) {
        return;
    }
    let since = points[low].0;
    board.raise(Finding {
        kind: Kind::Overfitting,
        subject: None,
        severity: Severity::Warning,
        since,
        since_ms: seen.ms(since),
        place: None,
        series: eval.key.clone(),
        title: "the loss on held-out data rises, the training loss falls".into(),
        what: format!(
            "The loss on held-out data was lowest at step {since}, at {}, and is now {}; the training loss fell from {} to {}.",
            figure(least),
            figure(newest),
            figure(then),
            figure(now)
        ),
        advice: ADVICE,
        level: least + rise / 2.0,
    });
}

/// The training loss near `step`, and now; `None` before the first window is complete.
fn training(train: &Slot, step: u32) -> Option<(f64, f64)> {
    let windows = train.windows.spans();
    let at = windows.partition_point(|window| window.to < step).min(windows.len().checked_sub(1)?);
    let then = median(windows[at.saturating_sub(1)..=at].iter().map(Span::value));
    Some((then, median(train.blocks.before(0, 6))))
}
