//! A run with something of all kinds.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lockstep_common::series::{Histogram, Point, SeriesKey, bin_of};
use lockstep_export::{Dataset, Item, Run, Status};

pub(crate) const BEGIN_MS: u64 = 1_700_000_000_000;

/// One pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

pub(crate) fn png() -> Vec<u8> {
    BASE64_STANDARD.decode(PNG).unwrap()
}

pub(crate) fn run() -> Run {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    Run {
        id: "quiet-otter-7".to_owned(),
        name: "digits, 2 processes".to_owned(),
        status: Status::Running,
        started_at_ms: Some(BEGIN_MS),
        ended_at_ms: None,
        parameters: map(&[
            ("optimizer.lr", "0.1"),
            ("optimizer.name", "adamw"),
            ("seed", "12345678901234567891"),
            ("shuffle", "true"),
            ("steps", "20"),
        ]),
        tags: map(&[
            ("code.commit", "0123456789abcdef0123456789abcdef01234567"),
            ("note", "a | b"),
            ("team", "vision"),
        ]),
        datasets: vec![Dataset { name: "data/digits.csv".to_owned(), digest: "ab".repeat(32), bytes: 4711 }],
    }
}

/// `run`, at its end.
pub(crate) fn ended(run: &Run, status: Status) -> Run {
    let mut run = Run { status, ended_at_ms: Some(BEGIN_MS + 60_000), ..run.clone() };
    run.tags.insert("final_state".to_owned(), "cd".repeat(32));
    run
}

/// Points of steps `from` to `to`, with one of no number, one infinite, and some that no decimal of few digits is.
pub(crate) fn points(from: u64, to: u64) -> Vec<Point> {
    let value = |step| match step {
        3 => f64::NAN,
        4 => f64::INFINITY,
        5 => f64::NEG_INFINITY,
        6 => -0.0,
        7 => f64::from_bits(1),
        8 => 1e300,
        step => 1.0 / step as f64,
    };
    let point = |step| Point { step, at_ms: BEGIN_MS + 250 * step, value: value(step) };
    (from..=to).map(point).collect()
}

/// Of values on both sides of 0, and zeros.
pub(crate) fn histogram(step: u64) -> Histogram {
    let values = [-3.0_f32, -0.1, 0.11, 0.12, 5.0, 5.1, 900.0];
    let mut bins = BTreeMap::new();
    for value in values {
        *bins.entry(bin_of(value)).or_insert(0) += 1;
    }
    Histogram {
        step,
        at_ms: BEGIN_MS + 250 * step,
        count: 10,
        zeros: 2,
        nans: 1,
        min: -3.0,
        max: 900.0,
        mean: 100.0,
        std: 280.0,
        bins: bins.into_iter().collect(),
        ..Histogram::default()
    }
}

pub(crate) fn loss() -> SeriesKey {
    SeriesKey::whole("train/loss")
}

pub(crate) fn memory(process: u32) -> SeriesKey {
    SeriesKey::part("process/rss_bytes", process)
}

/// A text and an image, of step 10.
pub(crate) fn shown(png: &[u8]) -> [Item<'_>; 2] {
    let at_ms = BEGIN_MS + 2500;
    [
        Item::Text { name: "sample", step: 10, at_ms, text: "once **upon** a time" },
        Item::Image { name: "digit/first", step: 10, at_ms, png, width: 1, height: 1 },
    ]
}
