//! Decoding of a block. No other code has checked its bytes before, so everything that a process can send is validated here.

use std::error::Error;
use std::fmt;

use lockstep_common::quoted;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};

use crate::{BlockHeader, ReportBlock, StepReport, StoredBlock};

/// The most reports of all kinds in one block. An empty report takes two bytes encoded, but hundreds in memory. A process never has
/// as many reports at once.
const MOST_REPORTS: usize = 1 << 18;

/// The longest text in a report, in bytes. Processes put longer texts into the blob store.
const MAX_KEPT_TEXT_BYTES: usize = 64 << 10;

const DIGEST_BYTES: usize = 32;

/// Field number of `ReportBlock.header`.
const HEADER: u32 = 13;

/// A valid block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecodedBlock {
    /// The block without its header.
    pub block: ReportBlock,
    /// A message about the first text or medium that was left out; in the block, a text with the reason replaces each of them.
    pub left_out: Option<String>,
}

/// Why a block is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsoundBlock {
    /// The last step that its header names; 0 if the header is unreadable.
    pub step: u64,
    /// What is wrong with the block.
    pub why: String,
}

impl fmt::Display for UnsoundBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for UnsoundBlock {}

/// Decodes and checks the block of `process` that is stored as `bytes`.
///
/// # Errors
/// If the block is invalid: the disk is damaged, or the process is faulty.
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
    /// Decodes the block and removes the steps that were rolled back.
    ///
    /// # Errors
    /// As [`decode_block`].
    pub fn decode(&self) -> Result<ReportBlock, UnsoundBlock> {
        let mut block = decode_block(self.process, &self.bytes)?.block;
        if let Some(cut) = self.cut {
            block.keep_until(cut);
        }
        Ok(block)
    }
}

fn no_block(error: &DecodeError) -> String {
    format!("its bytes are not a block of reports: {error}")
}

/// Counts the reports before they are decoded, because they take more memory than their bytes. A second header is rejected, because
/// the coordinator has checked only one.
fn scan(mut bytes: &[u8]) -> Result<(), String> {
    let (mut reports, mut headers) = (0_usize, 0_usize);
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(|error| no_block(&error))?;
        skip_field(wire_type, field, &mut bytes, DecodeContext::default()).map_err(|error| no_block(&error))?;
        reports += 1;
        headers += usize::from(field == HEADER);
    }
    if reports > MOST_REPORTS {
        Err(format!("it has {reports} reports, but at most {MOST_REPORTS} are possible"))
    } else if headers > 1 {
        Err(format!("it has {headers} headers, but one is possible"))
    } else {
        Ok(())
    }
}

/// Why the reports of `block` are invalid for its process: only process 0 may report steps, evaluations, fingerprints and the model;
/// and each step must follow the one before.
fn misplaced(block: &ReportBlock) -> Option<String> {
    let of_rank_0 = !block.steps.is_empty() || !block.evals.is_empty() || !block.fingerprints.is_empty();
    if block.process != 0 && (of_rank_0 || block.model.is_some()) {
        let process = block.process;
        return Some(format!("process {process} reports steps, evaluations or the model, but only process 0 may"));
    }
    let is_next = |pair: &[StepReport]| pair[0].step.checked_add(1) == Some(pair[1].step);
    let wrong = block.steps.windows(2).find(|&pair| !is_next(pair))?;
    Some(format!("its steps are not consecutive: step {} follows step {}", wrong[1].step, wrong[0].step))
}

/// The first difference between `block` and the header `said`, which the coordinator has checked.
fn differs(said: &BlockHeader, block: &ReportBlock) -> Option<String> {
    let held = BlockHeader::of(block);
    let steps = |header: &BlockHeader| (header.first_step, header.last_step);
    let numbers = |header: &BlockHeader| (header.loss, header.grad_norm, header.micros);
    let reach = said.reach.max(said.last_step);
    if steps(said) != steps(&held) {
        let ((first, last), (held, to)) = (steps(said), steps(&held));
        Some(format!("its header says steps {first} to {last}, but its body has steps {held} to {to}"))
    } else if numbers(said) != numbers(&held) {
        let last = held.last_step;
        Some(format!("loss, gradient norm or time in its header differ from those of its steps up to {last}"))
    } else {
        let names = held.reach;
        (names > reach)
            .then(|| format!("its header says that {reach} is its last step, but its body names step {names}"))
    }
}

/// Replaces texts that are too long for a report, and blobs with an invalid digest, by a text with the reason. Returns a message about
/// the first one.
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
                let why = format!("it has {} bytes, but a report may have {MAX_KEPT_TEXT_BYTES}", text.len());
                first = first.or_else(|| Some(format!("{words} is left out: {why}")));
                *text = format!("left out: {why}");
            }
        }
    }
    first
}

#[cfg(test)]
mod tests;
