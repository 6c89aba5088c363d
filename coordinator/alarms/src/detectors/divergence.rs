//! Divergence: the loss or the gradient norm leaves its range and does not return.
//!
//! Both are judged by the medians of three consecutive blocks of eight recorded points. Spikes of one or two steps, which healthy
//! runs with heavy tails have, do not move a median. Noise is estimated from differences of blocks, so that a trend is not counted
//! as noise.
//!
//! - The loss is compared with its *minimum*, so that a slow rise is found, too. It must exceed the minimum by [`NOISES`] times the
//!   noise, by a quarter of the descent so far, and by a fifth of the minimum. The second condition excludes tiny losses, which
//!   may rise tenfold and still be tiny.
//! - The logarithm of the gradient norm is compared with its trailing range. The norm must be [`NORM`] times its median; if it is
//!   noisy, up to [`WILD`] times. While the loss falls there is no alarm: gradients grow when a run starts to learn.
//! - While the learning rate is higher than at the minimum (warm-up, a restart), the loss may rise up to its first value without
//!   an alarm, and the gradient norm is not judged.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::culprit;
use crate::robust::{figure, median, noise, spread};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Number of consecutive blocks that must be outside the range.
const RECENT: usize = 3;

/// Largest and smallest number of blocks before them that define the range.
const REFERENCE: usize = 32;
const ENOUGH: usize = 8;

/// Required rise, as a multiple of a block's noise.
const NOISES: f64 = 8.0;

/// Required gradient norm as a multiple of its median: for a calm norm, and at most for a noisy one.
const NORM: f64 = 10.0;
const WILD: f64 = 30.0;

/// Number of consecutive blocks within the range that end the alarm.
const CALM: usize = 4;

/// Factor by which the learning rate may exceed that of the range before it counts as higher.
const RATE_RISE: f64 = 1.3;

/// Number of blocks after the beginning in which the layer may still be found: layers may be recorded rarely.
const SEARCH: u32 = 24;

const ADVICE: &[&str] = &[
    "submit the run again with a lower `optimizer.lr` or more `schedule.warmup_steps`",
    "set `optimizer.clip_norm` to about twice the gradient norm before it",
    "check the samples of the steps at which it began",
];

/// A series that left its range: subject 0 is the loss, 1 the gradient norm; the alarm ends below `level`. Norms are logarithms.
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

/// The verdict on the loss; `None` if it is within its range.
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

/// The verdict on the gradient norm; `None` if it is within its range, or the loss falls.
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

/// Whether the loss of the newest blocks is below that of the blocks before by more than the noise.
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
    let (name, what) =
        if norm { ("the gradient norm", "its median before was") } else { ("the loss", "its minimum was") };
    let mut what = vec![format!(
        "Since step {since} {name} is out of its range: it is {}; {what} {}.",
        shown(verdict.now),
        shown(verdict.before)
    )];
    if let Some(layer) = &layer {
        what.push(format!(
            "The first layer to leave its range was `{}`, at step {}: its gradient norm rose from {} to {}.",
            layer.slot.tensor(),
            layer.step,
            figure(layer.before.exp()),
            figure(layer.then.exp()),
        ));
    }
    if let Some(weights) = &weights {
        what.push(format!(
            "Only the weights of `{}` grew: their norm rose from {} to {} by step {}.",
            weights.slot.tensor(),
            figure(weights.before.exp()),
            figure(weights.then.exp()),
            weights.step,
        ));
    }
    if let Some(rank) = rank {
        what.push(format!("Rank {rank} is the only one whose gradient norm left its range."));
    }
    let since = layer.as_ref().map_or(since, |layer| layer.step.min(since));
    // Growing weights are the cause of growing gradients, so they take precedence.
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
