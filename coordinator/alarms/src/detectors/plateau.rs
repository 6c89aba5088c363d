//! Plateau: the loss stands still where it should fall.
//!
//! Every run that succeeds ends level too, so this asks for much: a thousand steps and half of the run without a hundredth of
//! improvement, with noise small enough that one would be seen; more than half of the loss it began with still there; and a
//! learning rate that is not at the end of its schedule. What remains that may be no fault is fine-tuning, which starts low
//! and has little to gain: it is a warning, and says so.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::history::Span;
use crate::robust::{figure, noise};
use crate::seen::Seen;
use crate::slot::{BLOCK, Role};

/// Steps, or recorded points of the loss, of a run that is judged; half of them are the stretch.
const POINTS: usize = 2000;

/// Improvement over the stretch, of the loss, below which it stands still.
const STILL: f64 = 0.01;

/// What must remain of the loss it began with.
const REMAINS: f64 = 0.5;

/// Of the highest learning rate; below it the schedule is at its end.
const RATE: f64 = 0.3;

const ADVICE: &[&str] = &[
    "try learning rates three times higher and three times lower",
    "check that labels and inputs belong together: try to fit one batch alone",
    "look at the gradient norms of the layers: none should be zero",
    "if it has learned what the data holds, stop here",
];

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let Some(loss) = seen.of(Role::Loss).next() else { return };
    let windows = loss.windows.spans();
    let (Some(start), Some(last)) = (loss.windows.first(), windows.last()) else { return };
    if let Some(entry) = board.standing(Kind::Plateau, None) {
        // It moves again, by twice what would not have counted.
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
    // It stands since the first window that is not above the level.
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
        title: "the loss stands still".into(),
        what: format!(
            "From step {since} to {} the loss stayed at {}; it began at {}. In the last {} steps it improved by less than a \
             hundredth, and the learning rate is not at its end.",
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
