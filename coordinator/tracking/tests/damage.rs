//! A database with damaged pages: nothing panics, it is set aside, and another one takes its place.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lockstep_common::RunId;
use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::{MediaReport, ModelReport, ReportBlock, Series};
use lockstep_support::only_test;
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

/// Names the directory of [`one_database`].
const DIR: &str = "LOCKSTEP_DAMAGED_DIR";

/// Uses the database that a variable names, if it does, and says when damage was found. Two panics at once end its process.
#[test]
fn one_database() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let (path, aside) = (dir.join("tracking.redb"), dir.join("tracking.redb.damaged"));
    let (mut writer, tracking) = Writer::open(&path).unwrap();
    if aside.exists() {
        println!("found at the start");
    } else {
        // Some of the bytes are of pages that are no longer used.
        let Err(error) = ask(&tracking).and_then(|_| fill(&mut writer)) else { return };
        assert!(error.is_damage(), "{error:?}");
        assert!(writer.check().is_err());
        writer.begin_anew(&error).unwrap();
        println!("found later");
    }
    assert!(aside.exists());
    fill(&mut writer).unwrap();
    println!("then {}", ask(&tracking).unwrap());
}

#[test]
fn damaged_pages_are_found_set_aside_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tracking.redb");
    let aside = dir.path().join("tracking.redb.damaged");
    let expected = format!("then {}", begin(&path));
    let sound = fs::read(&path).unwrap();
    // The head of each page, how many rows it has, and where they are.
    let written = (0..sound.len()).step_by(PAGE).filter(|page| sound[*page..*page + 16] != [0; 16]);
    let places: Vec<usize> = written.zip([0, 2, 6].into_iter().cycle()).map(|(page, within)| page + within).collect();
    let mut own = only_test("one_database");
    own.env(DIR, dir.path());
    let mut seen = BTreeMap::new();
    for at in places {
        fs::write(&path, damaged(&sound, at)).unwrap();
        let _ = fs::remove_file(&aside);
        let output = own.output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(!said.contains("panicked"), "place {at}: {said}");
        let when = ["found at the start", "found later", "start again"].into_iter().find(|words| said.contains(words));
        let code = if when == Some("start again") { 6 } else { 0 };
        assert_eq!((output.status.code(), aside.exists()), (Some(code), when.is_some()), "place {at}: {said}");
        assert!(said.contains(&expected) || code == 6 || when.is_none(), "place {at}: {said}");
        *seen.entry(when).or_insert(0) += 1;
    }
    assert!(seen[&Some("found at the start")] > 5 && seen[&Some("found later")] > 3, "{seen:?}");
}
