//! What is wrong is named, and what cannot be meant ends its run alone.

use lockstep_rpc::{Finished, MediaReport, Series, StepReport};

use super::*;

fn said_of(body: Body, job: Option<Asked>) -> Result<ReportBody, Status> {
    said(Some(ProcessMessage { body: Some(body) }), 0, job)
}

#[test]
fn what_is_wrong_is_named_and_never_a_panic() {
    let words = |status: Status| status.message().to_owned();
    assert_eq!(words(said(None, 0, None).unwrap_err()), "field `message`: it is empty");
    let short = Finished { step: 1, state: vec![1, 2] };
    assert_eq!(
        words(said_of(Body::Finished(short), None).unwrap_err()),
        "field `finished.state`: a digest has 32 bytes"
    );
    let blob = Some(BlobRef { digest: vec![1, 2], bytes: 1 });
    for (blob, words_of) in [(None, "it is missing"), (blob, "a digest has 32 bytes")] {
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
        let words = format!("field `ready.{field}`: 1310725 bytes are more than 1048576");
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
    assert_eq!(refused(hello(1_025, "h")), "field `devices`: 1025 are more than 1024");
    for (host, shown) in [("h\x1b[2J", "h\\u{1b}[2J"), ("h\u{202e}x", "h\\u{202e}x")] {
        assert_eq!(refused(hello(1, host)), format!("field `host`: `{shown}` has control characters"));
    }
    assert_eq!(refused(hello(1, &"h".repeat(257))), "field `host`: 257 bytes are more than 256");
}

#[test]
fn a_share_that_is_too_large_to_be_read_fails_its_checkpoint() {
    let blob = Some(BlobRef { digest: vec![0; 32], bytes: MAX_SHARE_BYTES as u64 + 1 });
    let share = CheckpointShare { step: 7, blob };
    let ReportBody::ShareRefused { step: 7, reason } = said_of(Body::Share(share), None).unwrap() else {
        panic!("not refused at step 7")
    };
    assert_eq!(reason, "its description takes 67108865 bytes, more than 67108864");
}

#[test]
fn a_block_that_the_log_would_not_take_ends_the_run_in_words() {
    let steps = vec![StepReport { step: 9, ..StepReport::default() }];
    let block = ReportBlock { steps, record_before: vec![0; MAX_BLOCK_BYTES], ..ReportBlock::default() };
    let ReportBody::Failed { reason, transient: false } = said_of(Body::Block(block), None).unwrap() else {
        panic!("it is taken")
    };
    assert!(reason.contains("up to step 9 takes 15728") && reason.contains("at most 15728640"), "{reason}");
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
        let said = |steps| said_of(Body::Block(block.clone()), Some(Asked { batch: 1, steps })).unwrap();
        assert!(matches!(said(11), ReportBody::Block { .. }));
        let ReportBody::Failed { reason, transient: false } = said(10) else { panic!("it is taken: {block:?}") };
        assert_eq!(reason, "it reports of step 11, and the job's last is 10");
    }
}

#[test]
fn a_text_that_is_too_long_is_left_out_by_name_and_the_rest_of_its_block_stays() {
    let text = |name: &str, bytes| MediaReport {
        name: name.to_owned(),
        step: 3,
        kind: "text".to_owned(),
        text: "x".repeat(bytes),
        ..MediaReport::default()
    };
    let steps = vec![StepReport { step: 3, ..StepReport::default() }];
    let media = vec![text("short", MAX_KEPT_TEXT_BYTES), text("long", 8 << 20), text("longer", 9 << 20)];
    let block = ReportBlock { steps, media, ..ReportBlock::default() };
    let mut message = Some(ProcessMessage { body: Some(Body::Block(block.clone())) });
    let words = leave_out_media(&mut message).unwrap();
    assert_eq!(words, "text `long` of step 3 is left out: 8388608 bytes, and at most 65536 go with a report");
    let Some(Body::Block(left)) = message.and_then(|message| message.body) else { panic!("no block") };
    assert_eq!((&left.steps, &left.media[0]), (&block.steps, &block.media[0]));
    assert_eq!(left.media[1].text, "left out: 8388608 bytes, and at most 65536 go with a report");
    assert!(left.encoded_len() < 70_000, "{}", left.encoded_len());
    let mut small = Some(ProcessMessage { body: Some(Body::Block(left)) });
    assert_eq!(leave_out_media(&mut small), None);
}

#[test]
fn a_medium_whose_digest_has_a_wrong_length_is_left_out_by_name() {
    let image = |name: &str, bytes| MediaReport {
        name: name.to_owned(),
        step: 3,
        kind: "image".to_owned(),
        blob: Some(lockstep_rpc::BlobRef { digest: vec![7; bytes], bytes: 9 }),
        ..MediaReport::default()
    };
    let media = vec![image("whole", 32), image("short", 31), image("none", 0), image("long", 33)];
    let block = ReportBlock { media, ..ReportBlock::default() };
    let mut message = Some(ProcessMessage { body: Some(Body::Block(block.clone())) });
    let words = leave_out_media(&mut message).unwrap();
    assert_eq!(words, "image `short` of step 3 is left out: the digest of its blob has 31 bytes, not 32");
    let Some(Body::Block(left)) = message.and_then(|message| message.body) else { panic!("no block") };
    assert_eq!(left.media[0], block.media[0]);
    for (one, bytes) in left.media[1..].iter().zip([31, 0, 33]) {
        let words = format!("left out: the digest of its blob has {bytes} bytes, not 32");
        assert_eq!((&one.kind[..], &one.text, &one.blob), ("text", &words, &None));
    }
}

#[test]
fn what_process_0_alone_tells_and_steps_out_of_order_end_the_run_in_words() {
    let step = |step| StepReport { step, ..StepReport::default() };
    let steps =
        |steps: Vec<u64>| ReportBlock { steps: steps.into_iter().map(step).collect(), ..ReportBlock::default() };
    let said = |block: &ReportBlock, process| {
        let message = ProcessMessage { body: Some(Body::Block(block.clone())) };
        match said(Some(message), process, None).unwrap() {
            ReportBody::Failed { reason, .. } => Some(reason),
            _ => None,
        }
    };
    let evals = ReportBlock { evals: vec![lockstep_rpc::EvalReport::default()], ..ReportBlock::default() };
    let model = ReportBlock { model: Some(lockstep_rpc::ModelReport::default()), ..ReportBlock::default() };
    for block in [steps(vec![3, 4]), evals, model] {
        assert_eq!(said(&block, 0), None);
        assert_eq!(said(&block, 1).unwrap(), "it reports steps, evaluations or the model, which process 0 reports");
    }
    for wrong in [vec![3, 3], vec![3, 5], vec![4, 3], vec![u64::MAX, 0]] {
        assert_eq!(said(&steps(wrong), 0).unwrap(), "the steps that it reports do not follow each other");
    }
    assert_eq!(said(&ReportBlock::default(), 1), None);
}

#[test]
fn a_block_gives_progress_at_its_last_step_and_the_rate_over_all() {
    let step = |step, micros| StepReport { step, loss: step, micros, ..StepReport::default() };
    let block = ReportBlock { steps: vec![step(4, 1_000), step(5, 3_000)], ..ReportBlock::default() };
    let job = Some(Asked { batch: 8, steps: 5 });
    let ReportBody::Block { progress: Some(progress), bytes } = said_of(Body::Block(block.clone()), job).unwrap()
    else {
        panic!("not a block with progress")
    };
    assert_eq!((progress.step, progress.loss, progress.samples_per_second), (5, 5, 4_000.0));
    assert_eq!(ReportBlock::decode(bytes.as_slice()).unwrap(), block);
    let empty = said_of(Body::Block(ReportBlock::default()), job).unwrap();
    assert!(matches!(empty, ReportBody::Block { progress: None, .. }));
}
