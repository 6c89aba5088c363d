//! `[optimizer]`: how gradients become updates.

use serde::{Deserialize, Serialize};

/// How gradients become updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Learning rate, before the schedule.
    pub lr: f64,
    /// Weight decay; on matrices and kernels only, unless `decay_all`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decays biases and normalisation weights too.
    #[serde(default)]
    pub decay_all: bool,
    /// SGD: momentum.
    #[serde(default)]
    pub momentum: f64,
    /// SGD: Nesterov's form of momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// Adam and AdamW: decay rates of the two moments.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Adam and AdamW: added to the denominator.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Scales gradients down to this global norm; none if absent. By the factor of `torch.nn.utils.clip_grad_norm_`, whose
    /// norm is a sum in 32 bits, parameter by parameter; here all squares are added in 64 bits, so the last bits may differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

/// The update rule, as in `torch.optim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the rules'")]
pub enum OptimizerKind {
    Sgd,
    Adam,
    Adamw,
}
