//! The store of numbers: what was written is read, from memory or disk, whole or down-sampled, and a roll-back rewinds it.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use lockstep_common::RunId;
use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::{HistogramReport, MediaReport, ReportBlock, Series};
use lockstep_tracking::{Event, Query, Tracking, Writer};

fn run() -> RunId {
    "aaaaaaaaaa".parse().unwrap()
}

fn value(step: u64) -> f64 {
    (step as f64 * 0.001).sin() + (step * 2_654_435_761 % 1000) as f64 * 1e-3
}

fn point(step: u64) -> Point {
    Point { step, at_ms: 1_795_682_816_000 + step * 3, value: value(step) }
}

fn block(key: &SeriesKey, steps: std::ops::Range<u64>) -> Event {
    let points: Vec<Point> = steps.map(point).collect();
    let series = vec![Series::of_points(key, &points)];
    Event::Block(Box::new(ReportBlock { series, ..ReportBlock::default() }))
}

fn whole(pixels: usize) -> Query {
    Query { branch: 0, from: 0, to: u64::MAX, pixels }
}

fn all(tracking: &Tracking, key: &SeriesKey) -> Vec<Point> {
    let drawn = tracking.curve(&run(), key, &whole(usize::MAX)).unwrap().unwrap();
    assert!(drawn.exact);
    let all = drawn.steps.iter().zip(&drawn.at_ms).zip(&drawn.values);
    all.map(|((&step, &at_ms), &value)| Point { step, at_ms, value }).collect()
}

#[test]
fn every_point_comes_back_in_order_whether_it_was_flushed_or_not_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tracking.redb");
    let key = SeriesKey::whole("loss");
    let expected: Vec<Point> = (1..20_001).map(point).collect();
    {
        let (mut writer, tracking) = Writer::open(&path).unwrap();
        for (index, start) in (1..20_001).step_by(100).enumerate() {
            writer.take(&run(), index as u64 + 1, block(&key, start..start + 100)).unwrap();
            if index % 37 == 0 {
                writer.flush().unwrap();
            }
            if index % 50 == 0 {
                let seen = all(&tracking, &key);
                assert_eq!(seen, expected[..start as usize + 99], "at block {index}");
            }
        }
        // The log brings a block again: at most once.
        writer.take(&run(), 7, block(&key, 601..701)).unwrap();
        assert_eq!(all(&tracking, &key), expected);
        // As a crash would: what was not flushed is brought again by the log.
    }
    let (mut writer, tracking) = Writer::open(&path).unwrap();
    let cursor = writer.cursor(&run()).unwrap();
    assert!((100..200).contains(&cursor), "{cursor}");
    assert_eq!(all(&tracking, &key), expected[..cursor as usize * 100]);
    for index in 1..=200 {
        let start = (index - 1) * 100 + 1;
        writer.take(&run(), index, block(&key, start..start + 100)).unwrap();
    }
    assert_eq!(all(&tracking, &key), expected);
    writer.flush().unwrap();
    assert_eq!(all(&tracking, &key), expected);
    let series = tracking.series(&run(), 0).unwrap();
    let summary = &series[&key];
    assert_eq!(
        (summary.count, summary.first_step, summary.last_step, summary.last),
        (20_000, 1, 20_000, value(20_000))
    );
    let most = expected.iter().map(|point| point.value).fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(summary.max, most);
}

#[test]
fn a_curve_has_about_as_many_points_as_pixels_and_hides_no_extreme() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
    let key = SeriesKey::whole("loss");
    let count = 300_000;
    for (index, start) in (0..count).step_by(10_000).enumerate() {
        writer.take(&run(), index as u64 + 1, block(&key, start..start + 10_000)).unwrap();
        if index == 20 {
            writer.flush().unwrap();
        }
    }
    let (least, most) =
        (0..count).map(value).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    for pixels in [10, 70, 500, 2_000, 5_000] {
        let curve = tracking.curve(&run(), &key, &whole(pixels)).unwrap().unwrap();
        assert!(!curve.exact && curve.steps.len() <= pixels + 1, "{pixels}: {}", curve.steps.len());
        assert!(curve.steps.len() > pixels / 2, "{pixels}: {}", curve.steps.len());
        assert!(curve.steps.is_sorted());
        assert_eq!(*curve.steps.last().unwrap(), count - 1, "the newest is there");
        assert_eq!(*curve.values.last().unwrap(), value(count - 1), "as it is, not as a mean");
        let gap = curve.steps.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(gap <= 2 * count.div_ceil(pixels as u64) + 64, "{pixels}: nothing for {gap} steps");
        assert_eq!(curve.min.iter().copied().fold(f64::INFINITY, f64::min), least, "{pixels}");
        assert_eq!(curve.max.iter().copied().fold(f64::NEG_INFINITY, f64::max), most, "{pixels}");
    }
    // A part of it, closely: exact, from disk and from memory.
    for from in [1_000, 150_000, 299_000] {
        let query = Query { branch: 0, from, to: from + 99, pixels: 100 };
        let curve = tracking.curve(&run(), &key, &query).unwrap().unwrap();
        assert!(curve.exact);
        assert_eq!(curve.steps, (from..from + 100).collect::<Vec<_>>());
        assert_eq!(curve.values, (from..from + 100).map(value).collect::<Vec<_>>());
    }
    assert!(tracking.curve(&run(), &SeriesKey::whole("none"), &whole(10)).unwrap().is_none());
    let far = Query { branch: 0, from: count * 2, to: u64::MAX, pixels: 10 };
    assert!(tracking.curve(&run(), &key, &far).unwrap().unwrap().steps.is_empty());
}

#[test]
fn a_roll_back_leaves_no_saw_tooth_and_keeps_the_branch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tracking.redb");
    let key = SeriesKey::part("loss", 2);
    let late = SeriesKey::whole("late");
    {
        let (mut writer, tracking) = Writer::open(&path).unwrap();
        writer.take(&run(), 1, block(&key, 1..9_001)).unwrap();
        writer.take(&run(), 2, block(&late, 8_000..8_010)).unwrap();
        let histogram = |step| HistogramReport { name: "weight/a".into(), step, ..HistogramReport::default() };
        let media = |step| MediaReport { name: "sample".into(), step, ..MediaReport::default() };
        let more = ReportBlock {
            histograms: vec![histogram(4_000), histogram(6_000)],
            media: vec![media(4_000), media(6_000)],
            ..ReportBlock::default()
        };
        writer.take(&run(), 3, Event::Block(Box::new(more))).unwrap();
        writer.take(&run(), 4, Event::Rewind(5_000)).unwrap();
        assert_eq!(all(&tracking, &key), (1..5_001).map(point).collect::<Vec<_>>());
        assert!(!tracking.series(&run(), 0).unwrap().contains_key(&late), "nothing of it remains");
        writer.take(&run(), 5, block(&key, 5_001..5_101)).unwrap();
        writer.flush().unwrap();
        assert_eq!(all(&tracking, &key), (1..5_101).map(point).collect::<Vec<_>>());
        let branches = tracking.branches(&run()).unwrap();
        assert_eq!((branches.len(), branches[0].after_step, branches[0].last_step), (1, 5_000, 9_000));
        let branch = Query { branch: 1, from: 0, to: u64::MAX, pixels: 100_000 };
        let left = tracking.curve(&run(), &key, &branch).unwrap().unwrap();
        assert_eq!((left.steps.first(), left.steps.len()), (Some(&5_001), 4_000));
        assert_eq!(tracking.series(&run(), 1).unwrap()[&late].count, 10);
        assert_eq!(tracking.histograms(&run(), "weight/a").unwrap().len(), 1);
        assert_eq!(tracking.media(&run()).unwrap().len(), 1);
        let summary = &tracking.series(&run(), 0).unwrap()[&key];
        assert_eq!((summary.count, summary.last_step, summary.last), (5_100, 5_100, value(5_100)));
        // To a step that nothing is beyond: no branch.
        writer.take(&run(), 6, Event::Rewind(5_100)).unwrap();
        assert_eq!(tracking.branches(&run()).unwrap().len(), 1);
        // To the very beginning.
        writer.take(&run(), 7, Event::Rewind(0)).unwrap();
        assert!(tracking.series(&run(), 0).unwrap().is_empty());
    }
    let (writer, tracking) = Writer::open(&path).unwrap();
    assert_eq!(writer.cursor(&run()).unwrap(), 7);
    assert_eq!(tracking.branches(&run()).unwrap().len(), 2);
    assert_eq!(tracking.series(&run(), 2).unwrap()[&key].count, 5_100);
}

#[test]
fn names_of_distributions_and_lists_of_series_are_each_run_s_own() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
    let other: RunId = "bbbbbbbbbb".parse().unwrap();
    let histograms = |names: &[&str]| {
        let one = |name: &str, step| HistogramReport { name: name.into(), step, ..HistogramReport::default() };
        let histograms = names.iter().flat_map(|name| [1, 2, 3].map(|step| one(name, step))).collect();
        Event::Block(Box::new(ReportBlock { histograms, ..ReportBlock::default() }))
    };
    writer.take(&run(), 1, histograms(&["weight/b", "weight/a", "weight/a.c"])).unwrap();
    writer.take(&other, 2, histograms(&["grad/z"])).unwrap();
    for flushed in [false, true] {
        if flushed {
            writer.flush().unwrap();
        }
        assert_eq!(tracking.histogram_names(&run()).unwrap(), ["weight/a", "weight/a.c", "weight/b"]);
        assert_eq!(tracking.histogram_names(&other).unwrap(), ["grad/z"]);
        let steps: Vec<_> = tracking.histograms(&run(), "weight/a").unwrap().iter().map(|one| one.step).collect();
        assert_eq!(steps, [1, 2, 3]);
    }
    assert!(tracking.series(&run(), 0).unwrap().is_empty() && tracking.model(&run()).unwrap().is_none());
    assert!(tracking.alarms(&run()).unwrap().is_empty());
}
