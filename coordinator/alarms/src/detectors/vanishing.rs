//! Vanishing gradients: the gradient of one layer stays zero or tiny, while the other layers have larger ones.
//!
//! A run that has learned has small gradients everywhere, and at the end of a schedule all updates are tiny. So a layer is compared
//! with the other layers, never judged alone. One of these must hold over the newest [`RECENT`] points:
//!
//! - its gradient is exactly zero, and those of most layers are not;
//! - the ratio of its gradient and its weights is less than 1e-5 of the median over all layers;
//! - its gradient has fallen 10,000 times further since the start than the median over all layers;
//! - its updates are below 1e-8 of its weights, the learning rate is not at its end, and the median update is above 1e-6.
//!
//! Biases are excluded: before a normalisation, or in an attention key, a bias has no gradient by algebra.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::history::START;
use crate::robust::{figure, median};
use crate::seen::Seen;
use crate::slot::{LN_ZERO, Role, Slot};

/// Number of newest points that are examined.
const RECENT: usize = 24;

/// Smallest number of layers for which a median over layers makes sense.
const LAYERS: usize = 3;

/// Share of the median ratio of gradient and weights below which a gradient vanishes.
const RELATIVE: f64 = 1e-5;

/// Factor by which the gradient must have fallen further than the median.
const FALL: f64 = 1e4;

/// Ratio of update and weights below which a layer does not change, and above which the median layer changes.
const STILL: f64 = 1e-8;
const MOVING: f64 = 1e-6;

const ADVICE: &[&str] = &[
    "check that the forward pass uses the layer and does not detach it from the loss; ignore the alarm if the layer is frozen",
    "use residual connections or normalisation, and activation functions that do not saturate",
    "check the initialization: its scale should depend on the width of the layer",
];

/// The compared values of a layer, as logarithms.
struct Layer<'a> {
    slot: &'a Slot,
    gradient: f64,
    relative: f64,
    fell: f64,
    update: Option<f64>,
    zero: bool,
}

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let layers: Vec<Layer<'_>> = seen.of(Role::LayerGrad).filter_map(|slot| layer(seen, slot)).collect();
    if layers.len() < LAYERS {
        return;
    }
    let relative = median(layers.iter().map(|layer| layer.relative));
    let fell = median(layers.iter().map(|layer| layer.fell));
    let update = median(layers.iter().filter_map(|layer| layer.update));
    let zeros = layers.iter().filter(|layer| layer.zero).count();
    let newest = layers.iter().filter_map(|layer| layer.slot.last).max().unwrap_or(0);
    let ends = seen.rate(newest).is_some_and(|(now, peak)| now < 0.01 * peak);
    let mut bad = Vec::new();
    for layer in &layers {
        let name = layer.slot.tensor();
        let said = if layer.zero && 2 * zeros < layers.len() {
            format!("The gradient of `{name}` is exactly zero.")
        } else if layer.relative < relative + RELATIVE.ln() && !layer.zero {
            format!(
                "The gradient norm of `{name}` is {}, which is {} of its weight norm; the median of all layers is {}.",
                figure(layer.gradient.exp()),
                figure(layer.relative.exp()),
                figure(relative.exp())
            )
        } else if layer.fell > fell + FALL.ln() && !layer.zero {
            format!(
                "The gradient norm of `{name}` is {}: it fell to {} of its first value; the median of all layers fell to {}.",
                figure(layer.gradient.exp()),
                figure((-layer.fell).exp()),
                figure((-fell).exp())
            )
        } else if !ends && update > MOVING.ln() && layer.update.is_some_and(|update| update < STILL.ln()) {
            format!(
                "Updates of `{name}` are below {STILL:e} of its weights; the median of all layers is {}.",
                figure(update.exp())
            )
        } else {
            continue;
        };
        bad.push((layer.slot, said));
    }
    let Some((slot, said)) = bad.iter().min_by_key(|(slot, _)| seen.forward(slot)).cloned() else {
        board.end(Kind::Vanishing, None, newest);
        return;
    };
    let mut what = vec![said];
    if bad.len() > 1 {
        what.push(format!("The same is true of {} other layers.", bad.len() - 1));
    }
    let since = began(slot);
    board.raise(Finding {
        kind: Kind::Vanishing,
        subject: None,
        severity: Severity::Warning,
        since,
        since_ms: seen.ms(since),
        place: Some(format!("layer `{}`", slot.tensor())),
        series: slot.key.clone(),
        title: "the gradient of a layer vanishes".into(),
        what: what.join(" "),
        advice: ADVICE,
        level: 0.0,
    });
}

/// The compared values of the layer; `None` for biases and for layers with too few points.
fn layer<'a>(seen: &Seen, slot: &'a Slot) -> Option<Layer<'a>> {
    let points = slot.trail.points();
    if points.len() < RECENT + START || slot.tensor().rsplit('.').next() == Some("bias") {
        return None;
    }
    let middle = |points: &[(u32, f32)]| median(points.iter().map(|point| f64::from(point.1)));
    let newest = slot.trail.newest(RECENT);
    let gradient = middle(newest);
    // Weights that are all zero have no scale, so the logarithm of their norm is at least -10.
    let weight = seen
        .beside(Role::LayerWeight, slot)
        .and_then(|weight| weight.trail.newest(1).first())
        .map_or(0.0, |point| f64::from(point.1))
        .max(-10.0);
    let update = seen
        .beside(Role::LayerUpdate, slot)
        .filter(|update| update.trail.points().len() >= RECENT)
        .map(|update| middle(update.trail.newest(RECENT)));
    Some(Layer {
        slot,
        gradient,
        relative: gradient - weight,
        fell: middle(&points[..START]) - gradient,
        update,
        zero: newest.iter().all(|point| point.1 <= LN_ZERO),
    })
}

/// The first step since which the gradient is closer to its present value than to its maximum (as logarithms).
fn began(slot: &Slot) -> u32 {
    let points = slot.trail.points();
    let now = median(slot.trail.newest(RECENT).iter().map(|point| f64::from(point.1)));
    let high = points.iter().map(|point| f64::from(point.1)).fold(f64::MIN, f64::max);
    // If the difference is only noise, the gradient was tiny from the start.
    let edge = if high - now > 3.0 { now.midpoint(high) } else { f64::MAX };
    let at = points.iter().rposition(|point| f64::from(point.1) > edge).map_or(0, |at| at + 1);
    points.get(at).map_or(0, |point| point.0)
}
