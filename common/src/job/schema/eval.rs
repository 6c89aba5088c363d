//! `[eval]`: evaluation between steps.

use serde::{Deserialize, Serialize};

use super::data::Data;
use crate::job::error::JobError;

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

impl Eval {
    pub(super) fn check(&self, data: &Data) -> Result<(), JobError> {
        if self.every_steps == 0 {
            return Err(JobError::value("eval.every_steps", "0 is not at least 1"));
        }
        if self.samples == Some(0) {
            return Err(JobError::value("eval.samples", "0 is not at least 1"));
        }
        self.feature_importance.as_ref().map_or(Ok(()), |importance| importance.check(data))
    }
}

/// How much each feature of the inputs counts, for tables and images: by permutation (what the loss rises by, if the feature's
/// values are shuffled among the samples) and by gradient times input. Of an image, a feature is one cell of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureImportance {
    /// Steps between measurements; 0: only at the end. The last step always has one.
    #[serde(default)]
    pub every_steps: u64,
    /// Validation samples to use at most, the first ones.
    #[serde(default = "importance_samples")]
    pub samples: u64,
    /// Times that each feature is shuffled; what is reported is the mean.
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
            let detail = "tokens are no features: it is for tables and images";
            return Err(JobError::value("eval.feature_importance", detail));
        }
        if self.samples < 2 {
            let detail = format!("{} is not at least 2: values are shuffled among samples", self.samples);
            return Err(JobError::value("eval.feature_importance.samples", detail));
        }
        if self.repeats == 0 {
            return Err(JobError::value("eval.feature_importance.repeats", "0 is not at least 1"));
        }
        Ok(())
    }
}
