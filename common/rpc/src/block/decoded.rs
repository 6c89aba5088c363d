//! A block where it is decoded. Nobody has looked at its bytes before: whatever a process can say is judged here.

use std::error::Error;
use std::fmt;

use lockstep_common::quoted;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};

use crate::{BlockHeader, ReportBlock, StepReport, StoredBlock};

/// Reports in one block, of all kinds: an empty one takes two bytes, and hundreds in memory. More than a process can have to say at
/// once, and those of a block of all its bytes.
const MOST_REPORTS: usize = 1 << 18;

/// Bytes of a text that a run keeps, where it goes with a report: longer ones are for the blob store, and processes put them there.
const MAX_KEPT_TEXT_BYTES: usize = 64 << 10;

const DIGEST_BYTES: usize = 32;

/// The number of `ReportBlock.header`.
const HEADER: u32 = 13;

/// A block that is sound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecodedBlock {
    /// Without its header, which agrees with it.
    pub block: ReportBlock,
    /// What is said of the first text or medium that is left out of it; words stand in the place of each.
    pub left_out: Option<String>,
}

/// A block that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsoundBlock {
    /// The step that it reaches by its header, as far as that is known.
    pub step: u64,
    /// The reason.
    pub why: String,
}

impl fmt::Display for UnsoundBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for UnsoundBlock {}

/// Decodes the block of `process` that is stored as `bytes`.
///
/// # Errors
/// If it cannot be taken: the disk is damaged, or the process said what cannot be.
pub fn decode_block(process: u32, bytes: &[u8]) -> Result<DecodedBlock, UnsoundBlock> {
    let unread = |why| UnsoundBlock { step: 0, why };
    scan(bytes).map_err(unread)?;
    let mut block = ReportBlock::decode(bytes).map_err(|error| unread(no_block(&error)))?;
    block.process = process;
    let header = block.header.take();
    if let Some(why) = misplaced(&block).or_else(|| header.and_then(|header| differs(&header, &block))) {
        let step = header.map_or(block.last_step(), |header| header.reach.max(header.last_step));
        return Err(UnsoundBlock { step, why });
    }
    block.dropped = block.dropped.saturating_add(header.map_or(0, |header| header.dropped));
    let left_out = leave_out_media(&mut block);
    Ok(DecodedBlock { block, left_out })
}

impl StoredBlock {
    /// The block that it holds, without the steps that were rolled back.
    ///
    /// # Errors
    /// As of [`decode_block`].
    pub fn decode(&self) -> Result<ReportBlock, UnsoundBlock> {
        let mut block = decode_block(self.process, &self.bytes)?.block;
        if let Some(cut) = self.cut {
            block.keep_until(cut);
        }
        Ok(block)
    }
}

fn no_block(error: &DecodeError) -> String {
    format!("its bytes are no block of reports: {error}")
}

/// Counts what takes more memory than bytes, before it does. Of two headers nobody knows which was judged.
fn scan(mut bytes: &[u8]) -> Result<(), String> {
    let (mut reports, mut headers) = (0_usize, 0_usize);
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(|error| no_block(&error))?;
        skip_field(wire_type, field, &mut bytes, DecodeContext::default()).map_err(|error| no_block(&error))?;
        reports += 1;
        headers += usize::from(field == HEADER);
    }
    if reports > MOST_REPORTS {
        Err(format!("it holds {reports} reports, more than {MOST_REPORTS}"))
    } else if headers > 1 {
        Err(format!("it has {headers} headers"))
    } else {
        Ok(())
    }
}

/// Why `block` is none of its process: what process 0 alone tells would stand in the place of what that said; and the record has
/// each step once, in order.
fn misplaced(block: &ReportBlock) -> Option<String> {
    let of_rank_0 = !block.steps.is_empty() || !block.evals.is_empty() || !block.fingerprints.is_empty();
    if block.process != 0 && (of_rank_0 || block.model.is_some()) {
        return Some("it reports steps, evaluations or the model, which process 0 reports".to_owned());
    }
    let is_next = |pair: &[StepReport]| pair[0].step.checked_add(1) == Some(pair[1].step);
    (!block.steps.windows(2).all(is_next)).then(|| "the steps that it reports do not follow each other".to_owned())
}

/// In what the header by which `block` was judged is not its own.
fn differs(said: &BlockHeader, block: &ReportBlock) -> Option<String> {
    let held = BlockHeader::of(block);
    let steps = |header: &BlockHeader| (header.first_step, header.last_step);
    let numbers = |header: &BlockHeader| (header.loss, header.grad_norm, header.micros);
    let reach = said.reach.max(said.last_step);
    if steps(said) != steps(&held) {
        let ((first, last), (held, to)) = (steps(said), steps(&held));
        Some(format!("its header says that it holds steps {first} to {last}, and it holds {held} to {to}"))
    } else if numbers(said) != numbers(&held) {
        let last = held.last_step;
        Some(format!("its header has another loss, gradient norm or time than its steps up to {last}"))
    } else {
        let names = held.reach;
        (names > reach).then(|| format!("its header says that it reaches step {reach}, and it reports of step {names}"))
    }
}

/// Leaves out of `block` texts that are too long to go with a report, and blobs that nobody could find. Words stand in their place.
/// Returns what is said of the first.
fn leave_out_media(block: &mut ReportBlock) -> Option<String> {
    let mut first = None;
    for one in &mut block.media {
        if let Some(bytes) = one.blob.as_ref().map(|blob| blob.digest.len()).filter(|bytes| *bytes != DIGEST_BYTES) {
            let words = format!("{} `{}` of step {}", quoted(&one.kind), quoted(&one.name), one.step);
            let why = format!("the digest of its blob has {bytes} bytes, not {DIGEST_BYTES}");
            first = first.or_else(|| Some(format!("{words} is left out: {why}")));
            one.blob = None;
            (one.kind, one.text) = ("text".to_owned(), format!("left out: {why}"));
        }
        let words = format!("text `{}` of step {}", quoted(&one.name), one.step);
        for text in [&mut one.text, &mut one.name, &mut one.kind, &mut one.file_name] {
            if text.len() > MAX_KEPT_TEXT_BYTES {
                let why = format!("{} bytes, and at most {MAX_KEPT_TEXT_BYTES} go with a report", text.len());
                first = first.or_else(|| Some(format!("{words} is left out: {why}")));
                *text = format!("left out: {why}");
            }
        }
    }
    first
}

#[cfg(test)]
mod tests;
