//! Errors are named, and the valid parts of a block are kept.

use super::*;
use crate::{BlobRef, EncodedBlock, EvalReport, MediaReport, ModelReport, StepReport, SystemReport};

fn stored(block: &ReportBlock) -> Vec<u8> {
    EncodedBlock::of(block.clone()).into_stored()
}

fn steps(steps: &[u64]) -> ReportBlock {
    let step = |step: &u64| StepReport { step: *step, loss: *step, ..StepReport::default() };
    ReportBlock { steps: steps.iter().map(step).collect(), ..ReportBlock::default() }
}

fn why(process: u32, bytes: &[u8]) -> String {
    decode_block(process, bytes).unwrap_err().to_string()
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
    let media = vec![text("short", MAX_KEPT_TEXT_BYTES), text("long", 8 << 20), text("longer", 9 << 20)];
    let block = ReportBlock { media, ..steps(&[3]) };
    let DecodedBlock { block: left, left_out } = decode_block(0, &stored(&block)).unwrap();
    let words = "text `long` of step 3 is left out: it has 8388608 bytes, but a report may have 65536";
    assert_eq!(left_out.as_deref(), Some(words));
    assert_eq!((&left.steps, &left.media[0]), (&block.steps, &block.media[0]));
    assert_eq!(left.media[1].text, "left out: it has 8388608 bytes, but a report may have 65536");
    assert!(left.encoded_len() < 70_000, "{}", left.encoded_len());
    assert_eq!(decode_block(0, &stored(&left)).unwrap().left_out, None);
}

#[test]
fn a_medium_whose_digest_has_a_wrong_length_is_left_out_by_name() {
    let image = |name: &str, bytes| MediaReport {
        name: name.to_owned(),
        step: 3,
        kind: "image".to_owned(),
        blob: Some(BlobRef { digest: vec![7; bytes], bytes: 9 }),
        ..MediaReport::default()
    };
    let media = vec![image("whole", 32), image("short", 31), image("none", 0), image("long", 33)];
    let block = ReportBlock { media, ..ReportBlock::default() };
    let DecodedBlock { block: left, left_out } = decode_block(0, &stored(&block)).unwrap();
    let words = "image `short` of step 3 is left out: the digest of its blob has 31 bytes, not 32";
    assert_eq!(left_out.as_deref(), Some(words));
    assert_eq!(left.media[0], block.media[0]);
    for (one, bytes) in left.media[1..].iter().zip([31, 0, 33]) {
        let words = format!("left out: the digest of its blob has {bytes} bytes, not 32");
        assert_eq!((&one.kind[..], &one.text, &one.blob), ("text", &words, &None));
    }
}

#[test]
fn what_process_0_alone_tells_and_steps_out_of_order_are_not_taken() {
    let evals = ReportBlock { evals: vec![EvalReport::default()], ..ReportBlock::default() };
    let model = ReportBlock { model: Some(ModelReport::default()), ..ReportBlock::default() };
    for block in [steps(&[3, 4]), evals, model] {
        assert_eq!(decode_block(0, &stored(&block)).unwrap().block, block);
        let words = "process 1 reports steps, evaluations or the model, but only process 0 may";
        assert_eq!(why(1, &stored(&block)), words);
    }
    for wrong in [[3, 3], [3, 5], [4, 3], [u64::MAX, 0]] {
        let words = format!("its steps are not consecutive: step {} follows step {}", wrong[1], wrong[0]);
        assert_eq!(why(0, &stored(&steps(&wrong))), words);
    }
    assert!(decode_block(1, &stored(&ReportBlock::default())).is_ok());
}

#[test]
fn a_block_that_its_header_does_not_tell_the_truth_of_is_not_taken() {
    let lied = |block: &ReportBlock, lie: &dyn Fn(&mut BlockHeader)| {
        let mut encoded = EncodedBlock::of(block.clone());
        lie(encoded.header.get_or_insert_default());
        why(0, &encoded.into_stored())
    };
    let held = ReportBlock { systems: vec![SystemReport { step: 9, ..SystemReport::default() }], ..steps(&[3, 4]) };
    assert_eq!(
        lied(&held, &|header| header.last_step = 7),
        "its header says steps 3 to 7, but its body has steps 3 to 4"
    );
    assert_eq!(
        lied(&held, &|header| *header = BlockHeader::default()),
        "its header says steps 0 to 0, but its body has steps 3 to 4"
    );
    let lies: [fn(&mut BlockHeader); 3] =
        [|header| header.loss = 1, |header| header.grad_norm = 1, |header| header.micros = 1];
    for lie in lies {
        let words = "loss, gradient norm or time in its header differ from those of its steps up to 4";
        assert_eq!(lied(&held, &lie), words);
    }
    assert_eq!(
        lied(&held, &|header| header.reach = 8),
        "its header says that 8 is its last step, but its body names step 9"
    );
    // A second header in the body would replace the one that was checked.
    let mut twice = EncodedBlock::of(ReportBlock { header: Some(BlockHeader::of(&held)), ..held.clone() });
    twice.header = Some(BlockHeader { reach: 1, ..BlockHeader::default() });
    assert_eq!(why(0, &twice.into_stored()), "it has 2 headers, but one is possible");
    // Blocks of earlier builds have no header.
    assert_eq!(decode_block(0, &held.encode_to_vec()).unwrap().block, held);
}

#[test]
fn bytes_that_are_no_block_or_would_fill_the_memory_are_not_taken() {
    assert!(why(0, &[0xff; 9]).starts_with("its bytes are not a block of reports: "));
    // Each pair of bytes is an empty `SystemReport`.
    let many = [0x2a, 0].repeat(MOST_REPORTS + 1);
    assert_eq!(why(0, &many), "it has 262145 reports, but at most 262144 are possible");
    let whole = stored(&ReportBlock { record_before: vec![1; 32], ..steps(&[1, 2, 3]) });
    for end in 0..whole.len() {
        let cut = decode_block(0, &whole[..end]);
        assert!(cut.is_err() || cut != decode_block(0, &whole), "{end} bytes of {}", whole.len());
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut wrong = whole.clone();
            wrong[at] ^= 1 << bit;
            drop(decode_block(0, &wrong));
        }
    }
}

#[test]
fn what_was_rolled_back_is_left_out_of_a_stored_block() {
    let of = |cut| StoredBlock { index: 1, process: 0, cut, bytes: stored(&steps(&[1, 2, 3])).into() };
    assert_eq!(of(None).decode().unwrap(), steps(&[1, 2, 3]));
    assert_eq!(of(Some(2)).decode().unwrap(), steps(&[1, 2]));
    assert!(StoredBlock { bytes: vec![0xff; 9].into(), ..of(None) }.decode().is_err());
}
