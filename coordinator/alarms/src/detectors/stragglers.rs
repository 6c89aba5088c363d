//! Stragglers: one process takes longer for its own work than the others, which wait for it in the reduction.
//!
//! Its own work is data, forward and backward. A slow process has a *short* reduction, so whole steps take equally long in all
//! processes. The process must take 1.3 times the median of the others in six consecutive blocks, about fifty recorded steps.
//! A few slow batches, or another program that is busy for a moment, do not raise the alarm.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::detectors::pace::{OWN, Pace, ROW, paces};
use crate::robust::{figure, median};
use crate::seen::Seen;

/// Multiple of the median of the others above which a process is slow.
const SLOW: f64 = 1.3;

/// Multiple below which, in the newer half of the blocks, the alarm ends.
const FINE: f64 = 1.2;

/// Smallest loss of time that counts, in seconds per step.
const LOST: f64 = 100e-6;

pub(crate) fn look(seen: &Seen, board: &mut Board) {
    let paces = paces(seen);
    if paces.len() < 2 {
        return;
    }
    for pace in &paces {
        let others: Vec<&Pace<'_>> = paces.iter().filter(|other| other.part != pace.part).collect();
        let usual = |age: usize| median(others.iter().map(|other| other.work(age)));
        if (0..ROW).all(|age| pace.work(age) > SLOW * usual(age) && pace.work(age) - usual(age) > LOST) {
            board.raise(finding(seen, pace, &others));
        } else if (0..ROW / 2).all(|age| pace.work(age) < FINE * usual(age)) {
            board.end(Kind::Straggler, Some(pace.part), pace.half);
        }
    }
}

fn finding(seen: &Seen, pace: &Pace<'_>, others: &[&Pace<'_>]) -> Finding {
    // The excess of each phase over the median of the others, in seconds per step.
    let excess: Vec<f64> = (0..OWN.len())
        .map(|own| median(pace.own[own]) - median(others.iter().map(|other| median(other.own[own]))))
        .collect();
    let worst = (0..OWN.len()).max_by(|&a, &b| excess[a].total_cmp(&excess[b])).unwrap_or(0);
    let phase = OWN[worst].1;
    let own = median((0..ROW).map(|age| pace.work(age)));
    let usual = median(others.iter().flat_map(|other| (0..ROW).map(|age| other.work(age))));
    let part = pace.part;
    Finding {
        kind: Kind::Straggler,
        subject: Some(part),
        severity: Severity::Warning,
        since: pace.from,
        since_ms: seen.ms(pace.from),
        place: Some(format!("process {part}, phase {phase}")),
        series: pace.slots.iter().flatten().next().map_or_else(
            || lockstep_common::series::SeriesKey::part(format!("phase/{phase}"), part),
            |slot| pace.slots[worst].unwrap_or(slot).key.clone(),
        ),
        title: "one process is slower than the others".into(),
        what: format!(
            "Process {part} takes {} ms per step for data, forward and backward: {:.2} times the {} ms of the others, which \
             wait for it. It loses most time in phase `{phase}`: {} ms per step.",
            figure(own * 1e3),
            own / usual,
            figure(usual * 1e3),
            figure(excess[worst] * 1e3)
        ),
        advice: if phase == "data" { DATA } else { COMPUTE },
        level: 0.0,
    }
}

const DATA: &[&str] = &[
    "check the disk and the network of its node: its data arrives later",
    "copy the data to a local disk of that node",
];

const COMPUTE: &[&str] = &[
    "check which other programs run on its node, and the clock and temperature of its device",
    "compare the devices of the run: the slowest model determines the pace",
    "check that all processes host equally many ranks: a process with more ranks has more work",
];
