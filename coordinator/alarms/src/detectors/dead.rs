//! Dead units: nearly all outputs of a module are zero, in several consecutive histograms.
//!
//! A rectifier whose inputs are all negative has no gradient and does not recover. For healthy rectifiers 50 to 90 % of zeros are
//! normal. So the share must exceed [`DEAD`] several times in a row, or exceed [`DYING`] after it rose from below [`ALIVE`]
//! without interruption.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Smallest number of elements of a histogram: fewer may all be zero by chance.
pub(crate) const FEWEST: u64 = 32;

/// Share of zeros above which a module is dead.
const DEAD: f32 = 0.98;

/// Number of consecutive histograms with that share.
const ROW: usize = 4;

/// Share of zeros above which a module is dying, if the share rose in each of [`RISING`] histograms, from below [`ALIVE`].
const DYING: f32 = 0.92;
const RISING: usize = 12;
const ALIVE: f32 = 0.75;

const ADVICE: &[&str] = &[
    "lower `optimizer.lr` or set `schedule.warmup_steps`: a large update pushes all units below zero",
    "use an activation function with a gradient below zero (LeakyReLU, GELU), or normalise its inputs",
    "check the initialization and the bias of the layer before it",
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
    let mut what = vec![format!("Since step {since}, {:.1} % of the outputs of `{name}` are zero.", share * 100.0)];
    if dead.len() > 1 {
        what.push(format!("The same is true of {} modules after it.", dead.len() - 1));
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

/// The step since which the module is dead or dying; `None` if it is neither.
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
