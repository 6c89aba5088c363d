//! Divergence: the loss or the gradient norm leaves its range and stays out.
//!
//! Both are judged by medians of blocks of eight steps, three in a row: the spikes of a heavy-tailed but healthy run, a step
//! or two long, move no median. Noise is that of the differences of blocks, so that a trend is not taken for noise.
//!
//! - The loss against the *best* it ever was, so that a slow blow-up is found too: it must have lost [`NOISES`] times its
//!   noise, a quarter of all it had descended, and a fifth of its best. The middle condition is what keeps a tiny loss quiet,
//!   which may well rise tenfold and still be tiny.
//! - The gradient norm, by its logarithm, against its trailing range: it must be [`NORM`] times its median, or more where it is
//!   wild, up to [`WILD`] times. Not while the loss falls: gradients grow where a run at last begins to learn.
//! - While the learning rate is higher than it was (warm-up, a restart) the loss may lose what it had; only above where it
//!   began is it an alarm. The gradient norm is not judged then.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::culprit;
use crate::robust::{figure, median, noise, spread};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Blocks in a row that must be out.
const RECENT: usize = 3;

/// Blocks before them that are the range, and how many are enough to know it.
const REFERENCE: usize = 32;
const ENOUGH: usize = 8;

/// Times the noise of a block.
const NOISES: f64 = 8.0;

/// Times the median of the gradient norm.
const NORM: f64 = 10.0;
const WILD: f64 = 30.0;

/// Blocks in a row within the range after which it is over.
const CALM: usize = 4;

/// How much higher the learning rate may be than in the range.
const RATE_RISE: f64 = 1.3;

/// Blocks after the beginning during which the first layer is looked for: layers may be recorded rarely.
const SEARCH: u32 = 24;

const ADVICE: &[&str] = &[
    "resume from the last checkpoint before it, if there is one, with a lower learning rate or a longer warm-up",
    "clip gradients by their norm, at about twice what it was before",
    "look at the samples of the steps where it began",
];

/// A judged series: which of the two, and from where it counts as over.
struct Verdict<'a> {
    slot: &'a Slot,
    subject: u32,
    before: f64,
    now: f64,
    level: f64,
}

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let series = [seen.of(Role::Loss).next(), seen.of(Role::GradNorm).next()];
    let mut stands = false;
    for (subject, slot) in (0..).zip(series) {
        let (Some(slot), Some(entry)) = (slot, board.standing(Kind::Divergence, Some(subject))) else { continue };
        stands = true;
        let (level, place, since) = (entry.level, entry.alarm.place.clone(), entry.alarm.since_step);
        let before = slot.blocks.before(0, CALM);
        if before.len() == CALM && before.iter().all(|&value| value < level) {
            let until = slot.blocks.back(CALM - 1).map_or(0, |block| block.from);
            board.end(Kind::Divergence, Some(subject), until);
        } else if let Some(newest) = slot.blocks.back(0) {
            let since = crate::history::short(since);
            let late = || place.is_none() || culprit::grown_weights(seen, since).is_some();
            if newest.to.saturating_sub(since) <= SEARCH.saturating_mul((newest.to - newest.from).saturating_add(1))
                && late()
            {
                let start = slot.blocks.before(0, REFERENCE);
                let verdict =
                    Verdict { slot, subject, before: level, now: start.last().copied().unwrap_or(level), level };
                let found = finding(seen, &verdict, since);
                if found.place.is_some() && found.place != place {
                    board.raise(found);
                }
            }
        }
    }
    if stands {
        return;
    }
    let [loss, norm] = series;
    let verdict = loss.and_then(|loss| lost(seen, loss)).or_else(|| norm.and_then(|norm| grown(seen, norm, loss)));
    if let Some(verdict) = verdict {
        let since = verdict.slot.blocks.back(RECENT - 1).map_or(0, |block| block.from);
        board.raise(finding(seen, &verdict, since));
    }
}

/// The loss, if it lost what it had.
fn lost<'a>(seen: &Seen, slot: &'a Slot) -> Option<Verdict<'a>> {
    let reference = slot.blocks.before(RECENT, REFERENCE);
    let newest = slot.blocks.back(RECENT - 1)?;
    if reference.len() < ENOUGH {
        return None;
    }
    let best = slot
        .windows
        .spans()
        .iter()
        .filter(|window| window.to < newest.from)
        .min_by(|a, b| a.value.total_cmp(&b.value))?;
    let start = slot.windows.first()?;
    let (noise, descent) = (noise(&reference), (start - best.value()).max(0.0));
    let mut before = best.value();
    let mut margin = (NOISES * noise).max(0.25 * descent).max(0.2 * before.abs()).max(0.02 * start.abs());
    if rate_rose(seen, best.to, newest.to) && start > before {
        before = start;
        margin = (NOISES * noise).max(0.2 * start.abs());
    }
    let recent = slot.blocks.before(0, RECENT);
    let lowest = recent.iter().copied().fold(f64::INFINITY, f64::min);
    (lowest > before + margin).then(|| Verdict {
        slot,
        subject: 0,
        before,
        now: recent[RECENT - 1],
        level: before + margin / 2.0,
    })
}

/// The gradient norm, if it grew out of its range and the loss did not gain by it.
fn grown<'a>(seen: &Seen, slot: &'a Slot, loss: Option<&Slot>) -> Option<Verdict<'a>> {
    let reference = slot.blocks.before(RECENT, REFERENCE);
    let (newest, oldest) = (slot.blocks.back(RECENT - 1)?, slot.blocks.back(slot.blocks.len() - 1)?);
    if reference.len() < ENOUGH || rate_rose(seen, oldest.to, newest.to) {
        return None;
    }
    let before = median(reference.iter().copied());
    let wild = (NOISES * noise(&reference)).max(4.0 * spread(reference.iter().copied()));
    let margin = wild.clamp(NORM.ln(), WILD.ln());
    let recent = slot.blocks.before(0, RECENT);
    let lowest = recent.iter().copied().fold(f64::INFINITY, f64::min);
    if lowest <= before + margin || loss.is_some_and(falls) {
        return None;
    }
    Some(Verdict { slot, subject: 1, before, now: recent[RECENT - 1], level: before + margin / 2.0 })
}

/// Whether the loss of the newest blocks is clearly below that of the ones before.
fn falls(loss: &Slot) -> bool {
    let reference = loss.blocks.before(RECENT, ENOUGH);
    let recent = median(loss.blocks.before(0, RECENT));
    reference.len() == ENOUGH && recent < median(reference.iter().copied()) - noise(&reference)
}

fn rate_rose(seen: &Seen, before: u32, now: u32) -> bool {
    seen.rate(before).zip(seen.rate(now)).is_some_and(|((before, _), (now, _))| now > RATE_RISE * before)
}

fn finding(seen: &Seen, verdict: &Verdict<'_>, since: u32) -> Finding {
    let layer = culprit::first(seen, since);
    let (weights, rank) = (culprit::grown_weights(seen, since), culprit::only_rank(seen, since));
    let norm = verdict.slot.role == Role::GradNorm;
    let shown = |value: f64| figure(if norm { value.exp() } else { value });
    let (name, what) = if norm { ("the gradient norm", "its median was") } else { ("the loss", "at its best it was") };
    let mut what =
        vec![format!("From step {since} on {name} is {}; {what} {}.", shown(verdict.now), shown(verdict.before))];
    if let Some(layer) = &layer {
        what.push(format!(
            "The first layer to leave its range was `{}`, at step {}: its gradient norm was {} and became {}.",
            layer.slot.tensor(),
            layer.step,
            figure(layer.before.exp()),
            figure(layer.then.exp()),
        ));
    }
    if let Some(weights) = &weights {
        what.push(format!(
            "The weights of `{}` grew, as no other layer's did: their norm was {} and is {} at step {}.",
            weights.slot.tensor(),
            figure(weights.before.exp()),
            figure(weights.then.exp()),
            weights.step,
        ));
    }
    if let Some(rank) = rank {
        what.push(format!("Of all ranks only the gradient of rank {rank} left its range."));
    }
    let since = layer.as_ref().map_or(since, |layer| layer.step.min(since));
    // What grew by itself comes before what grew with it.
    let layer = weights.or(layer);
    let place: Vec<String> = layer
        .iter()
        .map(|layer| format!("layer `{}`", layer.slot.tensor()))
        .chain(rank.map(|rank| format!("rank {rank}")))
        .collect();
    Finding {
        kind: Kind::Divergence,
        subject: Some(verdict.subject),
        severity: Severity::Error,
        since,
        since_ms: seen.ms(since),
        place: (!place.is_empty()).then(|| place.join(", ")),
        series: layer.map_or(verdict.slot, |layer| layer.slot).key.clone(),
        title: format!("{name} left its recent range"),
        what: what.join(" "),
        advice: ADVICE,
        level: verdict.level,
    }
}
