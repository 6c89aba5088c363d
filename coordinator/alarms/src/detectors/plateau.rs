//! Plateau: the loss no longer falls, although it is still high.
//!
//! A successful run ends level, too. So all of these must hold: the loss improved by less than 1 % during the second half of the run,
//! which has at least a thousand steps; the noise is small enough to show an improvement of 1 %; the loss is still more than half
//! of its first value; and the learning rate is not at the end of its schedule. Fine-tuning, which starts low and gains little, may
//! still look like this. So the alarm is only a warning.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::history::Span;
use crate::robust::{figure, noise};
use crate::seen::Seen;
use crate::slot::{BLOCK, Role};

/// Smallest number of recorded points of the loss. The second half of them is examined.
const POINTS: usize = 2000;

/// Smallest improvement in the second half, as a share of the loss, that is not a plateau.
const STILL: f64 = 0.01;

/// Share of the first loss that must remain.
const REMAINS: f64 = 0.5;

/// Share of the highest learning rate below which the schedule is at its end.
const RATE: f64 = 0.3;

const ADVICE: &[&str] = &[
    "try learning rates three times higher and three times lower",
    "check that labels match inputs: a model must be able to fit a single batch",
    "check the gradient norms of the layers: none should be zero",
    "end the run here if the loss is as low as the data permits",
];

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let Some(loss) = seen.of(Role::Loss).next() else { return };
    let windows = loss.windows.spans();
    let (Some(start), Some(last)) = (loss.windows.first(), windows.last()) else { return };
    if let Some(entry) = board.standing(Kind::Plateau, None) {
        // The loss falls again: below the level, by three times the improvement that counts as none.
        if windows.len() >= 3 && middle(&windows[windows.len() - 3..]) < entry.level {
            board.end(Kind::Plateau, None, windows[windows.len() - 3].from);
        }
        return;
    }
    if windows.len() * loss.windows.width() * BLOCK < POINTS || windows.len() < 24 {
        return;
    }
    let stretch = &windows[windows.len() / 2..];
    let third = stretch.len() / 3;
    let (early, late) = (middle(&stretch[..third]), middle(&stretch[stretch.len() - third..]));
    let values: Vec<f64> = stretch.iter().map(Span::value).collect();
    let unsure = noise(&values) * (2.0 / third as f64).sqrt();
    let ends = seen.rate(last.to).is_some_and(|(now, peak)| now < RATE * peak);
    let still = early - late < STILL * late && 3.0 * unsure < 3.0 * STILL * late;
    if !still || late < REMAINS * start || late <= 0.0 || ends {
        return;
    }
    // The plateau began at the first window that is not above its level.
    let at = windows.iter().position(|window| window.value() <= late * (1.0 + 2.0 * STILL)).unwrap_or(0);
    let since = windows[at].from;
    board.raise(Finding {
        kind: Kind::Plateau,
        subject: None,
        severity: Severity::Warning,
        since,
        since_ms: seen.ms(since),
        place: None,
        series: loss.key.clone(),
        title: "the loss no longer falls".into(),
        what: format!(
            "From step {since} to {} the loss stayed at {}; its first value was {}. In the last {} steps it improved by less \
             than 1 %, and the learning rate is not at the end of its schedule.",
            last.to,
            figure(late),
            figure(start),
            last.to - stretch[0].from,
        ),
        advice: ADVICE,
        level: late * (1.0 - 3.0 * STILL),
    });
}

fn middle(windows: &[Span]) -> f64 {
    windows.iter().map(Span::value).sum::<f64>() / windows.len() as f64
}
