//! What a run has no room for is left out by name, and is news once.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use lockstep_common::RunId;
use lockstep_rpc::{BlobRef, HistogramReport, MediaReport, ReportBlock, Series, StepReport};
use lockstep_tracking::{Event, Kind, Quota, Tracking, Writer};

fn run() -> RunId {
    "aaaaaaaaaa".parse().unwrap()
}

fn text(step: u64, bytes: usize) -> MediaReport {
    MediaReport { name: "t".into(), step, kind: "text".into(), text: "x".repeat(bytes), ..MediaReport::default() }
}

fn file(step: u64, bytes: u64) -> MediaReport {
    let blob = Some(BlobRef { digest: vec![step as u8; 32], bytes });
    MediaReport { name: "f".into(), step, kind: "artifact".into(), blob, ..MediaReport::default() }
}

/// With a number at each step: a roll-back leaves a branch where there are any.
fn block(media: Vec<MediaReport>) -> Event {
    let steps = media.iter().map(|one| StepReport { step: one.step, ..StepReport::default() }).collect();
    Event::Block(Box::new(ReportBlock { media, steps, ..ReportBlock::default() }))
}

fn steps(tracking: &Tracking) -> Vec<u64> {
    tracking.media(&run()).unwrap().iter().map(|one| one.step).collect()
}

#[test]
fn each_part_of_the_quota_holds_and_what_fits_later_is_taken() {
    for (quota, media, kept, key) in [
        (Quota { items: 2, ..Quota::default() }, vec![text(1, 1), file(2, 1), text(3, 1)], vec![1, 2], "media`"),
        (
            Quota { bytes: 100, ..Quota::default() },
            vec![file(1, 60), file(2, 60), file(3, 10)],
            vec![1, 3],
            "media_bytes`",
        ),
        (Quota { bytes: 100, ..Quota::default() }, vec![file(1, u64::MAX), text(2, 10)], vec![2], "media_bytes`"),
        (
            Quota { text_bytes: 50, ..Quota::default() },
            vec![text(1, 60), file(2, 60), text(3, 40)],
            vec![2, 3],
            "text_bytes`",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
        let mut writer = writer.with_quota(quota);
        writer.take(&run(), 1, block(media)).unwrap();
        assert_eq!(steps(&tracking), kept);
        let alarms = tracking.alarms(&run()).unwrap();
        assert_eq!((alarms.len(), alarms[0].kind), (1, Kind::MediaLeftOut));
        assert!(alarms[0].what.contains(&format!("`limits.{key}")), "{}", alarms[0].what);
    }
}

#[test]
fn what_is_left_out_is_told_once_and_counted_and_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tracking.redb");
    let quota = Quota { items: 3, ..Quota::default() };
    {
        let (writer, tracking) = Writer::open(&path).unwrap();
        let mut writer = writer.with_quota(quota);
        writer.take(&run(), 1, block(vec![text(1, 1), text(2, 1)])).unwrap();
        assert!(writer.take_raised(&run()).is_empty() && tracking.standing_alarms_of(&run()) == 0);
        // Steps that it is rolled back from count: otherwise a run that fails again and again has no quota.
        writer.take(&run(), 2, Event::Rewind(1)).unwrap();
        writer.take(&run(), 3, block(vec![text(2, 1), text(3, 1), text(4, 1)])).unwrap();
        let raised = writer.take_raised(&run());
        assert_eq!(raised.len(), 1);
        assert!(raised[0].what.starts_with("`t` of step 3 is not listed with the run, nor are 1 that came later"));
        writer.take(&run(), 4, block(vec![text(5, 1)])).unwrap();
        assert!(writer.take_raised(&run()).is_empty(), "told once");
        assert_eq!((steps(&tracking), tracking.standing_alarms_of(&run())), (vec![1, 2], 1));
        writer.flush().unwrap();
    }
    let (writer, tracking) = Writer::open(&path).unwrap();
    let what = tracking.alarms(&run()).unwrap().remove(0).what;
    assert!(what.starts_with("`t` of step 3 is not listed with the run, nor are 2 that came later"), "{what}");
    assert_eq!(tracking.standing_alarms_of(&run()), 1);
    let mut writer = writer.with_quota(quota);
    writer.take(&run(), 5, block(vec![text(6, 1)])).unwrap();
    assert_eq!(steps(&tracking), [1, 2], "the quota holds after a restart");
}

#[test]
fn series_beyond_the_quota_and_long_names_are_left_out_by_name_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tracking.redb");
    let numbers =
        |name: String, step| Series { name, steps: vec![step], at_ms: vec![1], values: vec![0.5], ..Series::default() };
    let block = |step: u64, names: Vec<String>| {
        let series = names.into_iter().map(|name| numbers(name, step)).collect();
        Event::Block(Box::new(ReportBlock { series, ..ReportBlock::default() }))
    };
    let quota = Quota { series: 3, ..Quota::default() };
    let names = |tracking: &Tracking| {
        let series = tracking.series(&run(), 0).unwrap();
        series.iter().map(|(key, summary)| (key.name.clone(), summary.count)).collect::<Vec<_>>()
    };
    let (writer, tracking) = Writer::open(&path).unwrap();
    let mut writer = writer.with_quota(quota);
    writer.take(&run(), 1, block(1, vec!["a".into(), "b".into(), "n".repeat(513)])).unwrap();
    writer.take(&run(), 2, block(2, vec!["a".into(), "c".into(), "d".into(), "e".into()])).unwrap();
    let kept = |a| vec![("a".to_owned(), a), ("b".to_owned(), 1), ("c".to_owned(), 1)];
    assert_eq!(names(&tracking), kept(2));
    let alarms = tracking.alarms(&run()).unwrap();
    assert_eq!((alarms.len(), alarms[0].kind), (1, Kind::MediaLeftOut));
    assert!(alarms[0].what.contains("its name has 513 bytes, more than 512"), "{}", alarms[0].what);
    assert!(alarms[0].what.contains("nor are 2 that came later"), "{}", alarms[0].what);
    writer.flush().unwrap();
    drop((writer, tracking));
    // After a restart the ones that are there count, and go on.
    let (writer, tracking) = Writer::open(&path).unwrap();
    let mut writer = writer.with_quota(quota);
    writer.take(&run(), 3, block(3, vec!["a".into(), "f".into()])).unwrap();
    assert_eq!(names(&tracking), kept(3));
}

#[test]
fn names_that_steer_and_blobs_that_cannot_be_are_left_out_by_name_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
    let series = |name: &str| Series {
        name: name.to_owned(),
        steps: vec![3],
        at_ms: vec![1],
        values: vec![0.5],
        ..Series::default()
    };
    let histogram = |name: &str| HistogramReport { name: name.to_owned(), step: 3, ..HistogramReport::default() };
    let cut = MediaReport { blob: Some(BlobRef { digest: vec![1; 31], bytes: 1 }), ..file(3, 1) };
    let turned = MediaReport { name: "a\u{2066}".into(), ..text(3, 1) };
    let block = ReportBlock {
        series: ["\x1b[2Jx", "plain ü", "a\u{202e}b", "line\n"].map(series).to_vec(),
        histograms: ["weight/a", "weight/\u{9b}"].map(histogram).to_vec(),
        media: vec![file(2, 1), cut, turned],
        ..ReportBlock::default()
    };
    writer.take(&run(), 1, Event::Block(Box::new(block))).unwrap();
    let names: Vec<String> = tracking.series(&run(), 0).unwrap().into_keys().map(|key| key.name).collect();
    assert_eq!((names, steps(&tracking)), (vec!["plain ü".to_owned()], vec![2]));
    let alarm = writer.take_raised(&run()).remove(0);
    let words = "`\\u{1b}[2Jx` of step 3 is not listed with the run, nor are 5 that came later: its name has control \
                 characters or marks of direction";
    assert_eq!((&alarm.what[..], alarm.kind), (words, Kind::MediaLeftOut));
    assert!(alarm.try_.len() == 1 && alarm.try_[0].contains("plain letters"), "no limit to raise: {:?}", alarm.try_);
    let cut = MediaReport { blob: Some(BlobRef { digest: vec![1; 33], bytes: 1 }), ..file(4, 1) };
    let metrics = lockstep_tracking::metrics_of(ReportBlock { media: vec![cut], ..ReportBlock::default() });
    assert_eq!((metrics.media.len(), &metrics.unfit[0].why[..]), (0, "the digest of its blob has 33 bytes, not 32"));
}
