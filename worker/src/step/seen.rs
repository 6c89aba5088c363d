//! The samples that the hosted ranks read in a step: their positions and their bytes. Hot.

use lockstep_common::contents::Contents;
use lockstep_data::{Batch, DataError, Dataset, contents_of};
use tch::Device;

/// The samples of the current step that the ranks of this process read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// In rank order.
    pub(super) positions: Vec<u64>,
    contents: Contents,
    /// The bytes of some samples are unknown.
    unknown: bool,
}

impl Seen {
    /// To be called at the beginning of a step.
    pub(super) fn clear(&mut self) {
        self.positions.clear();
        (self.contents, self.unknown) = (Contents::default(), false);
    }

    /// Reads the batch of the next rank, and notes its positions and bytes.
    pub(super) fn read(&mut self, data: &dyn Dataset, positions: &[u64], device: Device) -> Result<Batch, DataError> {
        self.positions.extend_from_slice(positions);
        let (batch, contents) = data.read(positions, device)?;
        match contents.or_else(|| contents_of(&batch, positions)) {
            Some(contents) => self.contents.join(contents),
            None => self.unknown = true,
        }
        Ok(batch)
    }

    /// The digest of the bytes; 0 if some are unknown.
    pub(super) fn word(&self) -> u64 {
        if self.unknown { 0 } else { self.contents.word() }
    }
}
