//! Throttling: a device runs below its clock because of heat or a power limit.
//!
//! The driver reports the reasons for a low clock as bits. They flicker, so most of the newest samples must have one. Healthy devices
//! reach the software power limit at full load, too, and lose almost no speed. So this reason alone counts only if the clock is
//! low or unknown. If no reason is reported, a clock that fell under load counts.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::robust::median;
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Number of newest samples, and how many of them must have a reason.
const RECENT: usize = 24;
const MOST: usize = 19;

/// Bit of the software power limit.
const POWER_LIMIT: u32 = 0x04;

/// Reasons: bit, words, and whether the hardware itself reduces the clock.
const REASONS: [(u32, &str, bool); 5] = [
    (POWER_LIMIT, "power limit", false),
    (0x08, "hardware slowdown", true),
    (0x20, "temperature", false),
    (0x40, "temperature, by hardware", true),
    (0x80, "power brake, by hardware", true),
];

/// Share of the best clock below which a device is slow.
const SLOW: f64 = 0.88;

/// Share of the best clock above which a device is at full speed.
const FULL: f64 = 0.95;

/// Utilisation above which a device is under load.
const LOAD: f64 = 0.8;

const ADVICE: &[&str] = &[
    "check the cooling: fans, air flow, room temperature, neighbouring devices",
    "check the power supply and the power limit (`nvidia-smi -q -d POWER`)",
    "take the device out of use until the cause is removed (`coord fence NODE DEVICE`)",
];

pub(crate) fn look(seen: &Seen, part: Option<u32>, board: &mut Board) {
    let reasons = seen.part(Role::Throttle, part);
    let clock = seen.part(Role::SmClock, part).and_then(|slot| Some((slot, fallen(slot)?)));
    let (held, newest) = reasons.map_or((0, 0), bits);
    let full = clock.map_or(seen.part(Role::SmClock, part).is_some(), |(_, ratio)| ratio > FULL);
    let held = if held == POWER_LIMIT && full { 0 } else { held };
    let busy = seen.part(Role::Utilisation, part).is_some_and(|slot| middle(slot.trail.newest(RECENT)) > LOAD);
    let subject = Some(part.unwrap_or(0));
    // Hysteresis: an active alarm ends only halfway between slow and full.
    let limit = if board.standing(Kind::Throttling, subject).is_some() { FULL.midpoint(SLOW) } else { SLOW };
    let slow = clock.filter(|&(_, ratio)| ratio < limit && busy);
    let Some(slot) = reasons.filter(|_| held != 0).or(slow.map(|slow| slow.0)) else {
        let now = clock.and_then(|(slot, _)| slot.last).unwrap_or(newest);
        board.end(Kind::Throttling, subject, now);
        return;
    };
    let named: Vec<&str> = REASONS.iter().filter(|reason| held & reason.0 != 0).map(|reason| reason.1).collect();
    let hardware = REASONS.iter().any(|reason| held & reason.0 != 0 && reason.2);
    let mut what = vec![if named.is_empty() {
        "The clock of the device fell under load.".to_owned()
    } else {
        format!("The driver reduces the clock in most samples. Reasons: {}.", named.join("; "))
    }];
    if let Some((_, ratio)) = clock {
        what.push(format!("The clock is at {:.0} % of its highest value.", ratio * 100.0));
    }
    let since = slot.trail.newest(RECENT).first().map_or(0, |point| point.0);
    board.raise(Finding {
        kind: Kind::Throttling,
        subject,
        severity: if hardware { Severity::Error } else { Severity::Warning },
        since,
        since_ms: seen.ms(since),
        place: Some(part.map_or_else(|| "the device".into(), |part| format!("device of process {part}"))),
        series: slot.key.clone(),
        title: "a device runs below its clock".into(),
        what: what.join(" "),
        advice: ADVICE,
        level: 0.0,
    });
}

/// The reasons in most of the newest samples, and the step of the newest sample. The software power limit is judged separately.
fn bits(slot: &Slot) -> (u32, u32) {
    let newest = slot.trail.newest(RECENT);
    let given = |bits: u32| newest.iter().filter(|point| point.1.max(0.0) as u32 & bits != 0).count();
    let serious = REASONS.iter().fold(0, |all, reason| all | reason.0) & !POWER_LIMIT;
    let held = if given(serious) >= MOST {
        REASONS.iter().filter(|reason| 3 * given(reason.0) >= newest.len()).fold(0, |held, reason| held | reason.0)
    } else if given(POWER_LIMIT) >= MOST {
        POWER_LIMIT
    } else {
        0
    };
    (held, slot.last.unwrap_or(0))
}

/// The present clock as a share of the best one. Each is taken from the faster samples, because a clock may vary with the load.
fn fallen(slot: &Slot) -> Option<f64> {
    let (now, best) = (fast(slot.trail.newest(RECENT)), fast(slot.trail.points()));
    (slot.trail.points().len() >= RECENT && best > 0.0).then(|| now / best)
}

/// The value that a tenth of the samples exceeds: the maximum may be a momentary boost.
fn fast(points: &[(u32, f32)]) -> f64 {
    let mut values: Vec<f32> = points.iter().map(|point| point.1).collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() * 9 / 10).map_or(0.0, |&value| f64::from(value))
}

fn middle(points: &[(u32, f32)]) -> f64 {
    median(points.iter().map(|point| f64::from(point.1)))
}
