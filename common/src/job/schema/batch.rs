//! `[batch]`: composition of batches, and the loss.

use serde::{Deserialize, Serialize};

use crate::job::error::JobError;
use crate::sampler::LastBatch;

/// The most samples of one step over all ranks. Each process keeps their positions, and its part of the batch, in memory.
const MOST_SAMPLES: u64 = 1 << 24;

/// Composition of batches, and the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Samples in one step over all ranks; divisible by `ranks`, at most 16,777,216.
    pub size: u64,
    /// Treatment of the samples at the end of an epoch that do not fill a batch.
    #[serde(default)]
    pub last: LastBatch,
    /// Reads the samples in a new random order in each epoch. Otherwise every epoch reads them in the order of the file.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// The loss over logits; default: squared error for `csv` with `task = "regression"`, else cross-entropy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossKind>,
}

fn yes() -> bool {
    true
}

impl Batch {
    pub(super) fn check(&self, ranks: u32) -> Result<(), JobError> {
        if self.size == 0 || !self.size.is_multiple_of(u64::from(ranks)) {
            let detail = match self.size {
                0 => "must be at least 1, not 0".to_owned(),
                size => format!("{size} is not divisible by `ranks` = {ranks}"),
            };
            return Err(JobError::value("batch.size", detail));
        }
        Ok(())
    }

    /// Limits that only new jobs must keep.
    pub(super) fn check_new(&self) -> Result<(), JobError> {
        if self.size > MOST_SAMPLES {
            let detail = format!("{} samples per step are too many: at most {MOST_SAMPLES} are possible", self.size);
            return Err(JobError::value("batch.size", detail));
        }
        Ok(())
    }
}

/// A loss over logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Softmax cross-entropy with class numbers.
    CrossEntropy,
    /// Mean squared error.
    Mse,
}
