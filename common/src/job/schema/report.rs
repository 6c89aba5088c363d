//! `[report]`: reports beside loss, learning rate and gradient norm.

use serde::{Deserialize, Serialize};

/// Reports beside loss, learning rate and gradient norm, which are recorded at every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Steps between reports of the gradient norm of each parameter; 0: never.
    #[serde(default = "ten")]
    pub layer_norms_every: u64,
    /// Steps between fingerprints of every parameter, gradient, optimizer tensor and buffer; 0: never. Processes compare the
    /// fingerprints, and the record contains them.
    #[serde(default = "two_hundred")]
    pub fingerprints_every: u64,
    /// Steps between reports that take longer to measure; 0: never. They are the distributions of parameters, gradients and activations,
    /// the norms of parameters and of their updates, and the gradient norm of each rank.
    #[serde(default = "two_hundred")]
    pub histograms_every: u64,
}

fn ten() -> u64 {
    10
}

fn two_hundred() -> u64 {
    200
}

impl Default for Report {
    fn default() -> Self {
        Self { layer_norms_every: ten(), fingerprints_every: two_hundred(), histograms_every: two_hundred() }
    }
}
