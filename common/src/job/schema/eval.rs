//! `[eval]`: evaluation between steps.

use serde::{Deserialize, Serialize};

use super::data::Data;
use crate::job::error::JobError;

/// Evaluation on the validation samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// Steps between evaluations, at least 1. The last step always has one.
    pub every_steps: u64,
    /// The most validation samples to use, from the first on; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Measurement of feature importance; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_importance: Option<FeatureImportance>,
}

impl Eval {
    pub(super) fn check(&self, data: &Data) -> Result<(), JobError> {
        if self.every_steps == 0 {
            return Err(JobError::value("eval.every_steps", "must be at least 1, not 0"));
        }
        if self.samples == Some(0) {
            return Err(JobError::value("eval.samples", "must be at least 1, not 0"));
        }
        self.feature_importance.as_ref().map_or(Ok(()), |importance| importance.check(data))
    }
}

/// Importance of each input feature, for tables and images. It is measured by permutation (the increase of the loss when the feature's
/// values are shuffled among the samples) and by gradient times input. A feature of an image is one cell of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FeatureImportance {
    /// Steps between measurements; 0: only after the last step, which always has one.
    #[serde(default)]
    pub every_steps: u64,
    /// The most validation samples to use, from the first on; at least 2.
    #[serde(default = "importance_samples")]
    pub samples: u64,
    /// Number of times that each feature is shuffled, at least 1. The mean is reported.
    #[serde(default = "three")]
    pub repeats: u32,
}

fn importance_samples() -> u64 {
    256
}

fn three() -> u32 {
    3
}

impl FeatureImportance {
    fn check(&self, data: &Data) -> Result<(), JobError> {
        if matches!(data, Data::Tokens { .. }) {
            let detail = "needs a table or images: data of kind `tokens` has no features; remove this key";
            return Err(JobError::value("eval.feature_importance", detail));
        }
        if self.samples < 2 {
            let detail = format!("must be at least 2, not {}: values are shuffled among samples", self.samples);
            return Err(JobError::value("eval.feature_importance.samples", detail));
        }
        if self.repeats == 0 {
            return Err(JobError::value("eval.feature_importance.repeats", "must be at least 1, not 0"));
        }
        Ok(())
    }
}
