//! `[batch]`: how samples are put together, and the loss over them.

use serde::{Deserialize, Serialize};

use crate::job::error::JobError;
use crate::sampler::LastBatch;

/// Samples of one step, over all ranks: their positions are held in memory, and every rank process must hold its part of the batch.
const MOST_SAMPLES: u64 = 1 << 24;

/// How samples are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Samples in one step over all ranks; divisible by `ranks`, at most 16,777,216.
    pub size: u64,
    /// What happens to the last partial batch of an epoch.
    #[serde(default)]
    pub last: LastBatch,
    /// Whether each epoch has its own order.
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
            let detail = format!("{} is not divisible by `ranks` = {ranks}", self.size);
            return Err(JobError::value("batch.size", detail));
        }
        Ok(())
    }

    /// What is refused of a new job only.
    pub(super) fn check_new(&self) -> Result<(), JobError> {
        if self.size > MOST_SAMPLES {
            let detail = format!("{} samples are more than a step may have, which are {MOST_SAMPLES}", self.size);
            return Err(JobError::value("batch.size", detail));
        }
        Ok(())
    }
}

/// A loss over logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Softmax cross-entropy with class numbers.
    CrossEntropy,
    /// Mean squared error.
    Mse,
}
