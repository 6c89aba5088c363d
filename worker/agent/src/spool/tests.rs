use lockstep_rpc::process_message::Body;
use lockstep_rpc::{BlockHeader, EncodedBlock, Failed, ReportBlock, Series, StepReport, decode_block};
use tempfile::TempDir;

use super::recovery::Lost;
use super::*;

fn key() -> ProcessKey {
    ProcessKey::new("0123456789", 3, 1).unwrap()
}

fn failed(reason: &str) -> ProcessMessage {
    ProcessMessage { body: Some(Body::Failed(Failed { reason: reason.into(), transient: false })) }
}

/// A message of about `bytes` bytes.
fn long(bytes: usize) -> ProcessMessage {
    failed(&"x".repeat(bytes))
}

fn spool() -> (TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::create(dir.path().join("s"), key()).unwrap();
    (dir, spool)
}

fn sequences(spool: &mut Spool) -> Vec<u64> {
    std::iter::from_fn(|| spool.next_unsent().unwrap()).map(|report| report.sequence).collect()
}

fn segment_files(spool: &Spool) -> usize {
    let names = fs::read_dir(&spool.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".segment")).count()
}

#[test]
fn reports_are_numbered_from_one_sent_once_and_again_after_a_rewind_until_acknowledged() {
    let (_dir, mut spool) = spool();
    let block =
        ReportBlock { process: 1, steps: vec![StepReport { step: 9, ..Default::default() }], ..Default::default() };
    let message = ProcessMessage { body: Some(Body::Block(EncodedBlock::of(block))) };
    for _ in 0..3 {
        spool.append(message.clone()).unwrap();
    }
    let first = spool.next_unsent().unwrap().unwrap();
    assert_eq!((first.run.as_str(), first.generation, first.process, first.sequence), ("0123456789", 3, 1, 1));
    assert_eq!(first.message, Some(message));
    assert_eq!(sequences(&mut spool), [2, 3]);
    spool.acknowledge(2).unwrap();
    assert!(!spool.is_acknowledged());
    spool.rewind();
    assert_eq!(sequences(&mut spool), [3]);
    spool.append(failed("late")).unwrap();
    assert_eq!(sequences(&mut spool), [4]);
    // An acknowledgement beyond the last report must not change the numbering.
    spool.acknowledge(99).unwrap();
    assert!(spool.is_acknowledged());
    spool.append(failed("later")).unwrap();
    assert_eq!(sequences(&mut spool), [5]);
}

#[test]
fn a_backlog_spans_segments_and_acknowledged_ones_are_deleted() {
    let (_dir, mut spool) = spool();
    for _ in 0..6 {
        spool.append(long(3 << 20)).unwrap();
    }
    assert_eq!(segment_files(&spool), 3);
    assert_eq!(sequences(&mut spool), [1, 2, 3, 4, 5, 6]);
    spool.acknowledge(3).unwrap();
    assert_eq!(segment_files(&spool), 2);
    spool.rewind();
    assert_eq!(sequences(&mut spool), [4, 5, 6]);
    spool.acknowledge(6).unwrap();
    assert_eq!(segment_files(&spool), 1, "the last one carries the numbering");
    let mut spool = Spool::recover(spool.dir.clone(), key()).unwrap().spool;
    spool.append(failed("next")).unwrap();
    assert_eq!(sequences(&mut spool), [5, 6, 7]);
}

#[test]
fn an_acknowledgement_that_overtakes_sending_skips_what_need_not_be_sent() {
    let (_dir, mut spool) = spool();
    for _ in 0..4 {
        spool.append(failed("x")).unwrap();
    }
    assert_eq!(sequences(&mut spool), [1, 2, 3, 4]);
    spool.rewind();
    assert_eq!(spool.next_unsent().unwrap().unwrap().sequence, 1);
    spool.acknowledge(3).unwrap();
    assert_eq!(sequences(&mut spool), [4]);
}

#[test]
fn a_tail_torn_anywhere_is_cut_off_and_its_number_is_given_again() {
    let (_dir, mut spool) = spool();
    for reason in ["one", "two", "three"] {
        spool.append(failed(reason)).unwrap();
    }
    let path = segment_path(&spool.dir, 1);
    let whole = fs::read(&path).unwrap();
    let record = whole.len() as u64 / 3;
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let mut recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
        let kept = sequences(&mut recovered.spool).len() as u64;
        assert!(kept <= length as u64 / (record - 2) && kept + 1 >= length as u64 / (record + 2), "{kept} of {length}");
        recovered.spool.append(failed("again")).unwrap();
        assert_eq!(sequences(&mut recovered.spool), [kept + 1]);
        let again = Spool::recover(spool.dir.clone(), key()).unwrap();
        assert_eq!((again.lost, again.last), (Vec::new(), Some(failed("again"))));
    }
}

#[test]
fn a_flipped_byte_is_found_when_read_and_ends_recovery_before_it() {
    let (_dir, mut spool) = spool();
    for reason in ["one", "two", "three"] {
        spool.append(failed(reason)).unwrap();
    }
    let path = segment_path(&spool.dir, 1);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(spool.next_unsent().unwrap().unwrap().sequence, 1);
    assert!(matches!(spool.next_unsent(), Err(SpoolError::Corrupt { .. })));
    let instead = spool.skip(failed("lost"));
    assert_eq!((instead.sequence, instead.message), (2, Some(failed("lost"))));
    let mut recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
    let [Lost::Cut { from: 2, .. }] = recovered.lost[..] else { panic!("{:?}", recovered.lost) };
    assert_eq!(sequences(&mut recovered.spool), [1]);
}

#[test]
fn a_missing_segment_ends_recovery_before_the_hole_and_is_named() {
    let words = |recovered: &Recovered| recovered.lost.iter().map(Lost::to_string).collect::<Vec<_>>();
    let (_dir, mut spool) = spool();
    for _ in 0..6 {
        spool.append(long(3 << 20)).unwrap();
    }
    fs::remove_file(segment_path(&spool.dir, 3)).unwrap();
    let mut recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
    assert_eq!(sequences(&mut recovered.spool), [1, 2]);
    let [missing, behind] = &words(&recovered)[..] else { panic!("{:?}", recovered.lost) };
    assert!(missing.starts_with("reports 3 to 4 are missing: no file in `"), "{missing}");
    assert!(
        behind.contains("5.segment` (") && behind.contains("reports from 5 on): it follows lost reports"),
        "{behind}"
    );
    recovered.spool.append(failed("later")).unwrap();
    assert_eq!(sequences(&mut recovered.spool), [3]);

    // Segments that were deleted on purpose are not missing; one between them and the first file is.
    recovered.spool.acknowledge(2).unwrap();
    for _ in 0..4 {
        recovered.spool.append(long(3 << 20)).unwrap();
    }
    recovered.spool.acknowledge(4).unwrap();
    let recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
    assert_eq!(words(&recovered), [] as [&str; 0]);
    let first = recovered.spool.segments.front().unwrap().first;
    fs::remove_file(segment_path(&spool.dir, first)).unwrap();
    let recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
    let next = recovered.spool.segments.front().unwrap().first;
    let expected = format!("reports {first} to {} are missing", next - 1);
    assert!(first > 1 && next > first && words(&recovered)[0].starts_with(&expected), "{:?}", recovered.lost);
    fs::remove_file(segment_path(&spool.dir, next)).unwrap();
    let mut recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
    assert!(words(&recovered)[0].contains("on are missing"), "{:?}", recovered.lost);
    recovered.spool.append(failed("later")).unwrap();
    assert_eq!(sequences(&mut recovered.spool), [first]);
}

#[test]
fn a_disk_that_takes_no_note_is_emptied_and_nothing_counts_as_lost() {
    let (_dir, mut spool) = spool();
    for _ in 0..6 {
        spool.append(long(3 << 20)).unwrap();
    }
    // A directory in the place of the file that is renamed stands for a full disk.
    fs::create_dir(spool.dir.join("deleted.fresh")).unwrap();
    spool.acknowledge(4).unwrap();
    assert_eq!(segment_files(&spool), 1);
    let recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
    assert_eq!((recovered.lost, recovered.spool.acknowledged), (Vec::new(), 4));
}

#[test]
fn no_pipe_in_the_place_of_a_file_is_waited_for() {
    for name in [DELETED, "segment"] {
        let (_dir, mut spool) = spool();
        spool.append(failed("x")).unwrap();
        let path = if name == DELETED { spool.dir.join(name) } else { segment_path(&spool.dir, 1) };
        fs::remove_file(&path).unwrap();
        lockstep_support::printed(std::process::Command::new("mkfifo").arg(&path));
        let said = |error: SpoolError| {
            let said = chain(&error);
            assert!(said.contains(&path.display().to_string()) && said.contains("not a regular file"), "{said}");
        };
        said(Spool::recover(spool.dir.clone(), key()).err().unwrap());
        if name != DELETED {
            spool.rewind();
            said(spool.next_unsent().err().unwrap());
            said(spool.drop_telemetry_of(0).err().unwrap());
        }
    }
}

#[test]
fn a_write_that_failed_leaves_nothing_behind_and_is_tried_again() {
    let (_dir, mut spool) = spool();
    spool.append(failed("one")).unwrap();
    // A file that cannot be written to stands for a full disk.
    spool.tail = Some(File::open(segment_path(&spool.dir, 1)).unwrap());
    assert!(matches!(spool.append(failed("two")), Err(SpoolError::Io { .. })));
    assert_eq!(sequences(&mut spool), [1]);
    spool.tail = None;
    spool.append(failed("two")).unwrap();
    assert_eq!(sequences(&mut spool), [2]);
}

#[test]
fn a_full_spool_drops_the_oldest_telemetry_counts_it_and_keeps_all_else() {
    let (_dir, spool) = spool();
    let mut spool = spool.bounded(3 * SEGMENT_BYTES);
    let series = |step: u64| Series {
        name: "mine".into(),
        steps: vec![step; 10_000],
        at_ms: vec![1; 10_000],
        values: vec![step as f64; 10_000],
        part: None,
    };
    let block = |step: u64| ReportBlock {
        steps: vec![StepReport { step, ..Default::default() }],
        series: vec![series(step)],
        ..Default::default()
    };
    let bytes = |spool: &Spool| {
        let files = fs::read_dir(&spool.dir).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let mut most = 0;
    for step in 1..=300 {
        spool.append(ProcessMessage { body: Some(Body::Block(EncodedBlock::of(block(step)))) }).unwrap();
        most = most.max(bytes(&spool));
        if step == 20 {
            // A reader in a segment that will be rewritten.
            assert_eq!(spool.next_unsent().unwrap().unwrap().sequence, 1);
        }
    }
    assert!((3 * SEGMENT_BYTES..5 * SEGMENT_BYTES).contains(&most), "{most}");
    let mut whole = Vec::new();
    let (mut dropped, mut expected) = (0, 2);
    let recovered = Spool::recover(spool.dir.clone(), key()).unwrap();
    assert_eq!(recovered.lost, []);
    while let Some(report) = spool.next_unsent().unwrap() {
        assert_eq!(report.sequence, expected);
        let Some(Body::Block(block)) = report.message.unwrap().body else { panic!("another message") };
        let block = decode_block(0, &block.into_stored()).unwrap().block;
        assert_eq!(block.steps[0].step, expected, "the record stays");
        dropped += block.dropped;
        if block.series.is_empty() {
            assert_eq!(block.dropped, 10_000);
        } else {
            whole.push(expected);
        }
        expected += 1;
    }
    assert_eq!(expected, 301);
    // Only the newest reports still have their telemetry.
    assert_eq!(whole, (300 - whole.len() as u64 + 1..=300).collect::<Vec<_>>());
    assert_eq!(dropped, 10_000 * (299 - whole.len() as u64));
}

#[test]
fn a_process_that_counts_wrongly_does_not_stop_its_agent() {
    let (_dir, mut spool) = spool();
    let header = Some(BlockHeader { telemetry_values: u64::MAX, dropped: 9, ..BlockHeader::default() });
    let block = EncodedBlock { header, record: vec![0xff; 9].into(), telemetry: vec![0xff; 9].into() };
    for _ in 0..2 {
        spool.append(ProcessMessage { body: Some(Body::Block(block.clone())) }).unwrap();
    }
    assert_eq!(spool.drop_telemetry_of(0).unwrap(), u64::MAX);
    let Some(Body::Block(kept)) = spool.next_unsent().unwrap().unwrap().message.unwrap().body else {
        panic!("no block")
    };
    assert_eq!((kept.known().dropped, &kept.record, kept.telemetry.len()), (u64::MAX, &block.record, 0));
}
