//! Which layer, or which rank, was the first whose gradient norm left its own range.
//!
//! A layer's range is that of its points well before the global norm was seen to leave its own: the layer goes first, and
//! what is already wrong must not count as usual. It left at the first point above the range after which three of four
//! points are above it too, so that a spike is no beginning. Of several that left at one recorded step, those that are not
//! clearly less out than the worst are taken for equal, and the first in the forward pass is named: its outputs feed the
//! others.
//!
//! Where the weights of one layer alone grew, that layer it is: the gradients of all layers before it grow with its weights.

use crate::robust::{median, spread};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Steps before the beginning that may already be wrong.
const MARGIN: u32 = 64;

/// Points of a range at most, and how many are enough.
const RANGE: usize = 24;
const ENOUGH: usize = 6;

/// So many times as large as before are weights that grew.
const GROWN: f64 = 1.5;

/// One that left its range.
pub(crate) struct Left<'a> {
    pub(crate) slot: &'a Slot,
    /// When it did.
    pub(crate) step: u32,
    /// The logarithm of its usual norm.
    pub(crate) before: f64,
    /// And of that at `step`.
    pub(crate) then: f64,
}

/// The layer that left first, about when the global norm did at `onset`.
pub(crate) fn first(seen: &Seen, onset: u32) -> Option<Left<'_>> {
    let mut all: Vec<Left<'_>> = seen.of(Role::LayerGrad).filter_map(|slot| left(slot, onset)).collect();
    let step = all.iter().map(|left| left.step).min()?;
    all.retain(|left| left.step == step);
    let worst = all.iter().map(|left| left.then - left.before).fold(0.0, f64::max);
    all.retain(|left| left.then - left.before > worst - std::f64::consts::LN_2);
    all.into_iter().min_by_key(|left| seen.forward(left.slot))
}

/// The layer whose weights have grown since about `onset`, if no other's did nearly as much. Weights are seen seldom: it may be
/// found later than the rest.
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

/// The rank that left, if no other is on its way.
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
        // A young run: then the first third must do.
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
