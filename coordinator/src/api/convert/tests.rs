//! Errors name the field, and an invalid report fails only its own run.

use lockstep_rpc::{Finished, MediaReport, ReportBlock, Series, StepReport, decode_block};

use super::*;

fn said_of(body: Body, job: Option<Asked>) -> Result<ReportBody, Status> {
    said(Some(ProcessMessage { body: Some(body) }), 0, job)
}

fn encoded(block: &ReportBlock) -> Body {
    Body::Block(EncodedBlock::of(block.clone()))
}

#[test]
fn what_is_wrong_is_named_and_never_a_panic() {
    let words = |status: Status| status.message().to_owned();
    assert_eq!(words(said(None, 0, None).unwrap_err()), "field `message`: it is empty");
    let short = Finished { step: 1, state: vec![1, 2] };
    assert_eq!(
        words(said_of(Body::Finished(short), None).unwrap_err()),
        "field `finished.state`: 2 bytes, but a digest has 32"
    );
    let blob = Some(BlobRef { digest: vec![1, 2], bytes: 1 });
    for (blob, words_of) in [(None, "it is missing"), (blob, "2 bytes, but a digest has 32")] {
        let share = Body::Share(CheckpointShare { step: 1, blob });
        assert_eq!(words(said_of(share, None).unwrap_err()), format!("field `share.blob`: {words_of}"));
    }
    let hello = Hello { node: "../x".into(), incarnation: "1".into(), ..Hello::default() };
    assert!(words(Joining::try_from(hello).unwrap_err()).starts_with("field `node`: `../x` is not a node name"));
}

#[test]
fn what_no_node_would_say_is_refused_by_its_field() {
    let device = |name: &str| lockstep_rpc::Device { name: name.to_owned(), ..Default::default() };
    for name in ["tpu", "cuda:x", "cpu\n", "CPU"] {
        let hello =
            Hello { node: "a".into(), incarnation: "1".into(), devices: vec![device(name)], ..Hello::default() };
        assert!(Joining::try_from(hello).unwrap_err().message().contains("expected `cpu` or `cuda:N`"), "{name}");
    }
    let many: std::collections::HashMap<String, String> =
        (0..5).map(|index| (index.to_string(), "x".repeat(1 << 18))).collect();
    let ready = |field: &str| match field {
        "numerics" => lockstep_rpc::Ready { numerics: many.clone(), ..Default::default() },
        _ => lockstep_rpc::Ready { environment: many.clone(), ..Default::default() },
    };
    for field in ["numerics", "environment"] {
        let error = said_of(Body::Ready(ready(field)), None).unwrap_err();
        let words = format!("field `ready.{field}`: 1310725 bytes, but the maximum is 1048576");
        assert_eq!(error.message(), words);
    }
    let hello = |devices: usize, host: &str| Hello {
        node: "a".into(),
        incarnation: "1".into(),
        host: host.into(),
        devices: (0..devices).map(|index| device(&format!("cuda:{index}"))).collect(),
        ..Hello::default()
    };
    assert_eq!(Joining::try_from(hello(1_024, "h")).unwrap().devices.len(), 1_024);
    let refused = |hello: Hello| Joining::try_from(hello).unwrap_err().message().to_owned();
    assert_eq!(refused(hello(1_025, "h")), "field `devices`: 1025 entries, but the maximum is 1024");
    for (host, shown) in [("h\x1b[2J", "h\\u{1b}[2J"), ("h\u{202e}x", "h\\u{202e}x")] {
        assert_eq!(refused(hello(1, host)), format!("field `host`: `{shown}` has control characters"));
    }
    assert_eq!(refused(hello(1, &"h".repeat(257))), "field `host`: 257 bytes, but the maximum is 256");
}

#[test]
fn a_share_that_is_too_large_to_be_read_fails_its_checkpoint() {
    let blob = Some(BlobRef { digest: vec![0; 32], bytes: MAX_SHARE_BYTES as u64 + 1 });
    let share = CheckpointShare { step: 7, blob };
    let ReportBody::ShareRefused { step: 7, reason } = said_of(Body::Share(share), None).unwrap() else {
        panic!("not refused at step 7")
    };
    assert_eq!(reason, "the description of its share has 67108865 bytes, more than 67108864");
}

#[test]
fn a_block_that_the_log_would_not_take_ends_the_run_in_words() {
    let steps = vec![StepReport { step: 9, ..StepReport::default() }];
    let block = ReportBlock { steps, record_before: vec![0; MAX_BLOCK_BYTES], ..ReportBlock::default() };
    let ReportBody::Failed { reason, transient: false } = said_of(encoded(&block), None).unwrap() else {
        panic!("the block is accepted")
    };
    assert!(reason.contains("up to step 9 has 15728") && reason.contains("the maximum is 15728640"), "{reason}");
}

#[test]
fn a_block_of_a_step_that_the_job_does_not_have_ends_the_run_in_words() {
    let series = Series { steps: vec![9, 2], ..Series::default() };
    let media = MediaReport { step: 11, ..MediaReport::default() };
    let blocks = [
        ReportBlock { steps: vec![StepReport { step: 11, ..StepReport::default() }], ..ReportBlock::default() },
        ReportBlock { series: vec![series], ..ReportBlock::default() },
        ReportBlock { media: vec![media], ..ReportBlock::default() },
    ];
    for block in blocks {
        let said = |steps| said_of(encoded(&block), Some(Asked { batch: 1, steps })).unwrap();
        assert!(matches!(said(11), ReportBody::Block { .. }));
        let ReportBody::Failed { reason, transient: false } = said(10) else {
            panic!("the block is accepted: {block:?}")
        };
        assert_eq!(reason, "its report contains step 11, but the job ends at step 10");
    }
}

#[test]
fn what_process_0_alone_tells_and_steps_out_of_order_end_the_run_in_words() {
    let said = |first_step, last_step, process| {
        let header = Some(BlockHeader { first_step, last_step, ..BlockHeader::default() });
        let body = Body::Block(EncodedBlock { header, ..EncodedBlock::default() });
        match said(Some(ProcessMessage { body: Some(body) }), process, None).unwrap() {
            ReportBody::Failed { reason, .. } => Some(reason),
            _ => None,
        }
    };
    assert_eq!(said(3, 4, 0), None);
    assert_eq!(said(3, 4, 1).unwrap(), "it reports steps, but only process 0 reports steps");
    for (first, last) in [(4, 3), (0, 4), (1, 0)] {
        assert!(said(first, last, 0).unwrap().starts_with("the steps in its report are not consecutive: "));
    }
    assert_eq!(said(0, 0, 1), None);
}

#[test]
fn a_block_gives_progress_at_its_last_step_and_the_rate_over_all_and_is_not_decoded() {
    let step = |step, micros| StepReport { step, loss: step, micros, ..StepReport::default() };
    let block = ReportBlock { steps: vec![step(4, 1_000), step(5, 3_000)], ..ReportBlock::default() };
    let job = Some(Asked { batch: 8, steps: 5 });
    let ReportBody::Block { progress: Some(progress), bytes } = said_of(encoded(&block), job).unwrap() else {
        panic!("not a block with progress")
    };
    assert_eq!((progress.step, progress.loss, progress.samples_per_second), (5, 5, 4_000.0));
    assert_eq!(decode_block(0, &bytes).unwrap().block, block);
    let header = BlockHeader { first_step: 1, last_step: u64::MAX, ..BlockHeader::default() };
    let wrong = EncodedBlock { header: Some(header), record: vec![0xff; 9].into(), ..EncodedBlock::default() };
    let ReportBody::Block { progress: Some(progress), bytes } = said_of(Body::Block(wrong), None).unwrap() else {
        panic!("not a block with progress")
    };
    assert!(progress.step == u64::MAX && decode_block(0, &bytes).is_err());
    let empty = said_of(encoded(&ReportBlock::default()), job).unwrap();
    assert!(matches!(empty, ReportBody::Block { progress: None, .. }));
}
