//! `[batch]`: how samples are put together, and the loss over them.

use serde::{Deserialize, Serialize};

use crate::sampler::LastBatch;

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

/// A loss over logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Softmax cross-entropy with class numbers.
    CrossEntropy,
    /// Mean squared error.
    Mse,
}
