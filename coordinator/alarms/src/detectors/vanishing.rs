//! Vanishing gradients: a layer gets no gradient to speak of, for long, while the others do.
//!
//! A run that has learned has small gradients everywhere, and a schedule's end makes all updates tiny: a layer is judged
//! against the other layers, never alone. Any of these, over the newest [`RECENT`] points:
//!
//! - its gradient is exactly zero while that of most layers is not;
//! - its gradient in relation to its weights is a hundred thousandth of what it is in the middle layer;
//! - it fell ten thousand times further since its start than the layers in the middle did;
//! - its updates are below 1e-8 of its weights, while the learning rate is not at its end and the others move.
//!
//! Biases are left out. In front of a normalisation, or as an attention key's, a bias has no gradient by algebra.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::history::START;
use crate::robust::{figure, median};
use crate::seen::Seen;
use crate::slot::{LN_ZERO, Role, Slot};

/// Points that must agree.
const RECENT: usize = 24;

/// Layers without which there is no middle.
const LAYERS: usize = 3;

/// Of the middle layer's gradient in relation to its weights.
const RELATIVE: f64 = 1e-5;

/// Times that it fell further than others.
const FALL: f64 = 1e4;

/// Updates in relation to weights.
const STILL: f64 = 1e-8;
const MOVING: f64 = 1e-6;

const ADVICE: &[&str] = &[
    "check that the layer is used in the forward pass and not detached from the loss; if it is frozen on purpose, nothing is wrong",
    "use residual connections or normalisation, and activations that do not saturate",
    "look at the initialization: its scale should follow the layer's width",
];

/// A layer by what is compared, as logarithms.
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
                "The gradient norm of `{name}` is {}, {} of its weights' norm; in the middle layer it is {}.",
                figure(layer.gradient.exp()),
                figure(layer.relative.exp()),
                figure(relative.exp())
            )
        } else if layer.fell > fell + FALL.ln() && !layer.zero {
            format!(
                "The gradient norm of `{name}` is {}: it fell to {} of what it was at the start; in the middle layer to {}.",
                figure(layer.gradient.exp()),
                figure((-layer.fell).exp()),
                figure((-fell).exp())
            )
        } else if !ends && update > MOVING.ln() && layer.update.is_some_and(|update| update < STILL.ln()) {
            format!(
                "Updates of `{name}` are below {STILL:e} of its weights; in the middle layer {}.",
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
        what.push(format!("{} other layers are like it.", bad.len() - 1));
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
        title: "a layer gets next to no gradient".into(),
        what: what.join(" "),
        advice: ADVICE,
        level: 0.0,
    });
}

/// `None` for biases and the young.
fn layer<'a>(seen: &Seen, slot: &'a Slot) -> Option<Layer<'a>> {
    let points = slot.trail.points();
    if points.len() < RECENT + START || slot.tensor().rsplit('.').next() == Some("bias") {
        return None;
    }
    let middle = |points: &[(u32, f32)]| median(points.iter().map(|point| f64::from(point.1)));
    let newest = slot.trail.newest(RECENT);
    let gradient = middle(newest);
    // Weights that are all zero say nothing of scale.
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

/// The first step since which its gradient is nearer what it is than what it was at its highest.
fn began(slot: &Slot) -> u32 {
    let points = slot.trail.points();
    let now = median(slot.trail.newest(RECENT).iter().map(|point| f64::from(point.1)));
    let high = points.iter().map(|point| f64::from(point.1)).fold(f64::MIN, f64::max);
    // Noise alone is no fall: then it was so from the start.
    let edge = if high - now > 3.0 { now.midpoint(high) } else { f64::MAX };
    let at = points.iter().rposition(|point| f64::from(point.1) > edge).map_or(0, |at| at + 1);
    points.get(at).map_or(0, |point| point.0)
}
