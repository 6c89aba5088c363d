//! Dead units: the outputs of a module are zero, nearly all of them, in histogram after histogram.
//!
//! A rectifier whose units are all below zero has no gradient either and does not come back. Half or nine tenths of zeros is
//! what rectifiers are for, so the share must be above [`DEAD`] several times in a row, or above [`DYING`] and risen the whole
//! way there from much less.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Elements that a histogram must have: of fewer all may be zero by chance.
pub(crate) const FEWEST: u64 = 32;

/// Share of zeros.
const DEAD: f32 = 0.98;

/// In so many histograms in a row.
const ROW: usize = 4;

/// Share of zeros, where it rose in [`RISING`] histograms from below [`ALIVE`].
const DYING: f32 = 0.92;
const RISING: usize = 12;
const ALIVE: f32 = 0.75;

const ADVICE: &[&str] = &[
    "lower the learning rate, or warm it up: a large step pushes all units below zero",
    "use a rectifier with a slope below zero (LeakyReLU, GELU), or normalise before it",
    "look at the initialization and the bias of the layer before it",
];

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let dead: Vec<(&Slot, u32)> = seen.of(Role::Activation).filter_map(|slot| Some((slot, since(slot)?))).collect();
    let Some(&(slot, since)) = dead.iter().min_by_key(|(slot, _)| seen.forward(slot)) else {
        let revived =
            seen.of(Role::Activation).filter_map(|slot| slot.trail.newest(1).first()).map(|last| last.0).max();
        board.end(Kind::DeadUnits, None, revived.unwrap_or(0));
        return;
    };
    let share = slot.trail.newest(1).first().map_or(0.0, |point| point.1);
    let name = slot.tensor();
    let mut what = vec![format!("Of the outputs of `{name}` {:.1} % are zero, since step {since}.", share * 100.0)];
    if dead.len() > 1 {
        what.push(format!("So it is in {} other modules that come after it.", dead.len() - 1));
    }
    board.raise(Finding {
        kind: Kind::DeadUnits,
        subject: None,
        severity: Severity::Warning,
        since,
        since_ms: seen.ms(since),
        place: Some(format!("layer `{name}`")),
        series: slot.key.clone(),
        title: "nearly all outputs of a layer are zero".into(),
        what: what.join(" "),
        advice: ADVICE,
        level: 0.0,
    });
}

/// Since when it is dead or dying.
fn since(slot: &Slot) -> Option<u32> {
    let points = slot.trail.points();
    let alive = points.iter().rposition(|point| point.1 <= DEAD).map_or(0, |at| at + 1);
    if points.len() - alive >= ROW {
        return Some(points[alive].0);
    }
    let rising = slot.trail.newest(RISING);
    let rose = rising.len() == RISING
        && rising[0].1 < ALIVE
        && rising[RISING - 1].1 > DYING
        && rising.windows(2).all(|pair| pair[0].1 < pair[1].1);
    rose.then(|| rising[0].0)
}
