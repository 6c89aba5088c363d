//! `[optimizer]`: how gradients become updates.

use serde::{Deserialize, Serialize};

use super::range::{is_fraction, is_not_negative, is_positive};
use crate::job::error::JobError;

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

impl Optimizer {
    pub(super) fn check(&self) -> Result<(), JobError> {
        let refuse = |key, detail: String| Err(JobError::value(key, detail));
        if !is_positive(self.lr) {
            return refuse("optimizer.lr", format!("{} is not above 0", self.lr));
        }
        if !is_not_negative(self.weight_decay) {
            return refuse("optimizer.weight_decay", format!("{} is not 0 or above", self.weight_decay));
        }
        if !is_fraction(self.momentum) || !self.betas.iter().all(|&beta| is_fraction(beta)) {
            return refuse("optimizer", "`momentum` and `betas` must be from 0 to below 1".into());
        }
        if self.kind != OptimizerKind::Sgd && (self.momentum != 0.0 || self.nesterov) {
            return refuse("optimizer.momentum", "only `sgd` has momentum; `adam` and `adamw` have `betas`".into());
        }
        if self.nesterov && self.momentum == 0.0 {
            return refuse("optimizer.nesterov", "needs `momentum` above 0".into());
        }
        if !is_positive(self.eps) {
            return refuse("optimizer.eps", format!("{} is not above 0", self.eps));
        }
        if let Some(norm) = self.clip_norm.filter(|norm| !is_positive(*norm)) {
            return refuse("optimizer.clip_norm", format!("{norm} is not above 0"));
        }
        Ok(())
    }
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
