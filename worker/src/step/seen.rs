//! What the hosted ranks read in a step: which samples, and their bytes. Hot.

use lockstep_common::contents::Contents;
use lockstep_data::{Batch, DataError, Dataset, contents_of};
use tch::Device;

/// The samples of the step under way, as far as this process hosts their ranks.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// In rank order.
    pub(super) positions: Vec<u64>,
    contents: Contents,
    /// Some bytes cannot be known.
    unknown: bool,
}

impl Seen {
    /// A step begins.
    pub(super) fn clear(&mut self) {
        self.positions.clear();
        (self.contents, self.unknown) = (Contents::default(), false);
    }

    /// The batch of the next rank.
    pub(super) fn read(&mut self, data: &dyn Dataset, positions: &[u64], device: Device) -> Result<Batch, DataError> {
        self.positions.extend_from_slice(positions);
        let (batch, contents) = data.read(positions, device)?;
        match contents.or_else(|| contents_of(&batch, positions)) {
            Some(contents) => self.contents.join(contents),
            None => self.unknown = true,
        }
        Ok(batch)
    }

    /// The bytes as a word; 0 if they are not known.
    pub(super) fn word(&self) -> u64 {
        if self.unknown { 0 } else { self.contents.word() }
    }
}
