//! `[eval]`: evaluation between steps.

use serde::{Deserialize, Serialize};

/// Evaluation on the validation samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// Steps between evaluations.
    pub every_steps: u64,
    /// Validation samples to use at most, the first ones; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// How much each feature of the inputs counts; not measured if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_importance: Option<FeatureImportance>,
}

/// How much each feature of the inputs counts, for tables and images: by permutation (what the loss rises by, if the feature's
/// values are dealt out anew among the samples) and by gradient times input. Of an image, a feature is one cell of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureImportance {
    /// Steps between measurements; 0: only at the end. The last step always has one.
    #[serde(default)]
    pub every_steps: u64,
    /// Validation samples to use at most, the first ones.
    #[serde(default = "importance_samples")]
    pub samples: u64,
    /// Times that each feature is dealt out; what is reported is the mean.
    #[serde(default = "three")]
    pub repeats: u32,
}

fn importance_samples() -> u64 {
    256
}

fn three() -> u32 {
    3
}
