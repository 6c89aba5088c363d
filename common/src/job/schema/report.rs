//! `[report]`: what is reported beside loss, learning rate and gradient norm.

use serde::{Deserialize, Serialize};

/// What is reported beside loss, learning rate and gradient norm, which are recorded at every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Steps between reports of the gradient norm of each parameter; 0: never.
    #[serde(default = "ten")]
    pub layer_norms_every: u64,
    /// Steps between fingerprints of every parameter, gradient, optimizer tensor and buffer, which are compared between
    /// processes and kept in the record; 0: never.
    #[serde(default = "two_hundred")]
    pub fingerprints_every: u64,
    /// Steps between reports of what costs more to measure: distributions of each parameter, its gradient and of what each
    /// layer gives, norms of parameters and of what a step changes in them, and each rank's own gradient norm; 0: never.
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
