//! Stragglers: one process takes longer for its own work than the others, who wait for it in the reduction.
//!
//! Its own work is data, forward and backward: a slow process has a *short* reduction, so whole steps are equal in all. It
//! must take 1.3 times the median of the others in six blocks in a row, about fifty records; a busy neighbour for a moment or
//! a few slow batches do not.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::detectors::pace::{OWN, Pace, ROW, paces};
use crate::robust::{figure, median};
use crate::seen::Seen;

/// Times the median of the others.
const SLOW: f64 = 1.3;

/// Below which, in the newer half of the blocks, it is over.
const FINE: f64 = 1.2;

/// Seconds a step that must be lost.
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
    // Of each phase by how much it is longer.
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
            "Process {part} takes {} ms a step for data, forward and backward, {:.2} times the {} ms of the others, who wait \
             for it. Most of it is lost in phase {phase}: {} ms a step.",
            figure(own * 1e3),
            own / usual,
            figure(usual * 1e3),
            figure(excess[worst] * 1e3)
        ),
        advice: if phase == "data" { DATA } else { COMPUTE },
        level: 0.0,
    }
}

const DATA: &[&str] =
    &["look at the disk or the network of that node: its data comes slower", "put its shards on a local disk"];

const COMPUTE: &[&str] = &[
    "look at what else runs on that node, and at its device's clock and temperature",
    "compare the devices: a mix of models runs at the pace of the slowest",
    "check that ranks are placed evenly: a process of more ranks has more to do",
];
