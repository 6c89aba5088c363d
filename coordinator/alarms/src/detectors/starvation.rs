//! Data starvation: all processes spend much of each step waiting for data.
//!
//! Every process must wait for more than [`SHARE`] of the step, in six consecutive blocks. If only one of several processes waits, it
//! is a straggler.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::detectors::pace::{Pace, ROW, paces};
use crate::robust::{figure, median};
use crate::seen::Seen;

/// Share of the step above which data is too slow.
const SHARE: f64 = 0.3;

/// Share of the step below which, in the newer half of the blocks, the alarm ends.
const FINE: f64 = 0.25;

const ADVICE: &[&str] = &[
    "copy the data to a local disk; in your own program, read ahead with more threads and larger reads",
    "decode or tokenize the data once before training, not in each epoch",
    "raise `batch.size` if the device has free memory: fewer, larger reads",
];

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let paces = paces(seen);
    let Some(first) = paces.first() else { return };
    let share = |pace: &Pace<'_>, age: usize| pace.own[0][age] / pace.step[age].max(f64::MIN_POSITIVE);
    if (0..ROW / 2).all(|age| paces.iter().any(|pace| share(pace, age) < FINE)) {
        board.end(Kind::DataStarvation, None, first.half);
    }
    let starved = |pace: &Pace<'_>| (0..ROW).all(|age| share(pace, age) > SHARE);
    let Some(slot) = first.slots[0].filter(|_| paces.iter().all(starved)) else { return };
    let seconds = median(paces.iter().flat_map(|pace| pace.own[0]));
    let shares = median(paces.iter().flat_map(|pace| (0..ROW).map(|age| share(pace, age))));
    board.raise(Finding {
        kind: Kind::DataStarvation,
        subject: None,
        severity: Severity::Warning,
        since: first.from,
        since_ms: seen.ms(first.from),
        place: Some("data loader".into()),
        series: slot.key.clone(),
        title: "the data loader is slow: all processes wait for data".into(),
        what: format!(
            "Since step {}, {:.0} % of each step ({} ms) is spent waiting for data, in {}.",
            first.from,
            shares * 100.0,
            figure(seconds * 1e3),
            if paces.len() == 1 { "the only process".into() } else { format!("all {} processes", paces.len()) }
        ),
        advice: ADVICE,
        level: 0.0,
    });
}
