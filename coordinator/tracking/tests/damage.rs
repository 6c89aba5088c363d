//! A database with damaged pages: nothing panics, it is set aside, and another one takes its place.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use std::fs;
use std::path::Path;

use lockstep_common::RunId;
use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::{MediaReport, ModelReport, ReportBlock, Series};
use lockstep_tracking::{Event, Query, Tracking, TrackingError, Writer};

/// Steps of each run.
const STEPS: u64 = 400;

fn runs() -> [RunId; 2] {
    ["aaaaaaaaaa", "bbbbbbbbbb"].map(|run| run.parse().unwrap())
}

fn keys() -> Vec<SeriesKey> {
    (0..8).map(|number| SeriesKey::whole(format!("layer.{number}.weight/update"))).collect()
}

fn block() -> Event {
    let points: Vec<Point> = (1..=STEPS).map(|step| Point { step, at_ms: step * 7, value: step as f64 }).collect();
    let series = keys().iter().map(|key| Series::of_points(key, &points)).collect();
    let text = MediaReport {
        name: "says".into(),
        step: 1,
        kind: "text".into(),
        text: "x".repeat(9000),
        ..MediaReport::default()
    };
    let model = Some(ModelReport { kind: "mlp".to_owned(), parameters: Vec::new() });
    Event::Block(Box::new(ReportBlock { series, media: vec![text], model, ..ReportBlock::default() }))
}

fn fill(writer: &mut Writer) -> Result<(), TrackingError> {
    for run in &runs() {
        writer.take(run, 1, block())?;
    }
    writer.flush()
}

/// Whatever the page asks, of both runs; the sum of one curve's values.
fn ask(tracking: &Tracking) -> Result<f64, TrackingError> {
    let mut sum = 0.0;
    for run in &runs() {
        tracking.branches(run)?;
        tracking.dropped(run)?;
        tracking.histogram_names(run)?;
        tracking.histograms(run, "none")?;
        tracking.media(run)?;
        tracking.model(run)?;
        tracking.alarms(run)?;
        for key in tracking.series(run, 0)?.into_keys() {
            for pixels in [10, 100, 10_000] {
                let query = Query { branch: 0, from: 0, to: u64::MAX, pixels };
                let drawn = tracking.curve(run, &key, &query)?;
                sum += drawn.map_or(0.0, |drawn| drawn.values.iter().sum());
            }
        }
    }
    Ok(sum)
}

fn begin(path: &Path) -> f64 {
    let (mut writer, tracking) = Writer::open(path).unwrap();
    fill(&mut writer).unwrap();
    ask(&tracking).unwrap()
}

/// Bytes of a page.
const PAGE: usize = 4096;

/// `bytes`, of which a few from `at` on are others.
fn damaged(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.iter_mut().skip(at).take(2).for_each(|byte| *byte ^= 0xa5);
    bytes
}

#[test]
fn damaged_pages_are_found_set_aside_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tracking.redb");
    let aside = dir.path().join("tracking.redb.damaged");
    let expected = begin(&path);
    let sound = fs::read(&path).unwrap();
    // The head of each page, how many rows it has, and where they are.
    let written = (0..sound.len()).step_by(PAGE).filter(|page| sound[*page..*page + 16] != [0; 16]);
    let places: Vec<usize> = written.zip([0, 2, 6].into_iter().cycle()).map(|(page, within)| page + within).collect();
    let (mut at_start, mut later) = (0, 0);
    for at in places {
        fs::write(&path, damaged(&sound, at)).unwrap();
        let _ = fs::remove_file(&aside);
        let (mut writer, tracking) = Writer::open(&path).unwrap();
        if aside.exists() {
            at_start += 1;
        } else {
            // Some of the bytes are of pages that are no longer used.
            let Err(error) = ask(&tracking).and_then(|_| fill(&mut writer)) else { continue };
            assert!(error.is_damage(), "{error:?}");
            assert!(writer.check().is_err());
            writer.begin_anew(&error).unwrap();
            later += 1;
        }
        assert!(aside.exists(), "place {at}");
        fill(&mut writer).unwrap();
        assert_eq!(ask(&tracking).unwrap(), expected, "place {at}");
    }
    assert!(at_start > 5 && later > 3, "{at_start} and {later}");
}
