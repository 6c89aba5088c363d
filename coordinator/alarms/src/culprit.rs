//! Finds the layer, or the rank, whose gradient norm left its range first.
//!
//! The range of a layer is computed from points well before the global norm left its range: the layer leaves first, and points
//! that are already wrong must not widen the range. A layer has left at the first point above the range if three quarters of the
//! points from there on are above it, too: a spike does not count. If several layers left at the same recorded step, those within
//! a factor of two of the worst count as equal, and the first of them in the forward pass is named, because its outputs feed
//! the others.
//!
//! If the weights of only one layer grew, that layer is named: its weights enlarge the gradients of all layers before it.

use crate::robust::{median, spread};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Steps before the onset whose values may already be wrong; the range excludes them.
const MARGIN: u32 = 64;

/// Largest and smallest number of points from which a range is computed.
const RANGE: usize = 24;
const ENOUGH: usize = 6;

/// Factor above which weights have grown.
const GROWN: f64 = 1.5;

/// A series that left its range.
pub(crate) struct Left<'a> {
    pub(crate) slot: &'a Slot,
    /// The first step outside the range.
    pub(crate) step: u32,
    /// Logarithm of the median norm before.
    pub(crate) before: f64,
    /// Logarithm of the norm at `step`.
    pub(crate) then: f64,
}

/// The layer whose gradient norm left its range first, if the global norm left its range at step `onset`.
pub(crate) fn first(seen: &Seen, onset: u32) -> Option<Left<'_>> {
    let mut all: Vec<Left<'_>> = seen.of(Role::LayerGrad).filter_map(|slot| left(slot, onset)).collect();
    let step = all.iter().map(|left| left.step).min()?;
    all.retain(|left| left.step == step);
    let worst = all.iter().map(|left| left.then - left.before).fold(0.0, f64::max);
    all.retain(|left| left.then - left.before > worst - std::f64::consts::LN_2);
    all.into_iter().min_by_key(|left| seen.forward(left.slot))
}

/// The layer whose weights have grown since about `onset`, if the weights of every other layer grew by less than half of that.
///
/// Weight norms are recorded rarely, so the layer may be known only some time after the alarm.
pub(crate) fn grown_weights(seen: &Seen, onset: u32) -> Option<Left<'_>> {
    let grown = |slot: &'_ Slot| {
        let points = slot.trail.points();
        let calm = points.partition_point(|point| point.0 < onset.saturating_sub(MARGIN));
        let (before, newest) = (points[..calm].last()?, points[calm..].last()?);
        Some((newest.0, f64::from(before.1), f64::from(newest.1)))
    };
    let all = seen.of(Role::LayerWeight).filter_map(|slot| Some((slot, grown(slot)?)));
    let mut all: Vec<Left<'_>> = all.map(|(slot, (step, before, then))| Left { slot, step, before, then }).collect();
    all.sort_by(|a, b| (b.then - b.before).total_cmp(&(a.then - a.before)));
    let growth = |left: Option<&Left<'_>>| left.map_or(0.0, |left| left.then - left.before);
    let (most, next) = (growth(all.first()), growth(all.get(1)));
    (most > GROWN.ln() && next < most / 2.0).then(|| all.swap_remove(0))
}

/// The rank whose gradient norm left its range, if no other rank's norm rose by a third as much (in logarithms).
pub(crate) fn only_rank(seen: &Seen, onset: u32) -> Option<u32> {
    let ranks: Vec<&Slot> = seen.of(Role::RankNorm).collect();
    let only = ranks.iter().filter_map(|slot| left(slot, onset)).min_by_key(|left| left.step)?;
    let out = |slot: &Slot| median(slot.trail.newest(4).iter().map(|point| f64::from(point.1))) - only.before;
    let third = out(only.slot) / 3.0;
    let alone = ranks.iter().all(|slot| slot.key == only.slot.key || out(slot) < third);
    (ranks.len() > 1 && alone).then(|| only.slot.part())
}

fn left(slot: &Slot, onset: u32) -> Option<Left<'_>> {
    let points = slot.trail.points();
    let mut calm = points.partition_point(|point| point.0 < onset.saturating_sub(MARGIN));
    if calm < ENOUGH {
        // The run is too young for a range before the margin: use the first third of its points.
        calm = points.len() / 3;
    }
    if calm < ENOUGH {
        return None;
    }
    let range = points[calm.saturating_sub(RANGE)..calm].iter().map(|point| f64::from(point.1));
    let before = median(range.clone());
    let limit = before + (5.0 * spread(range)).max(2.5_f64.ln());
    let out = |at: usize| f64::from(points[at].1) > limit;
    let at = (calm..points.len().saturating_sub(1)).find(|&at| {
        let above = (at..points.len()).filter(|&at| out(at)).count();
        out(at) && out(at + 1) && 4 * above >= 3 * (points.len() - at)
    })?;
    Some(Left { slot, step: points[at].0, before, then: f64::from(points[at].1) })
}
