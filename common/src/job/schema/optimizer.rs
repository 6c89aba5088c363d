//! `[optimizer]`: the update rule and its parameters.

use serde::{Deserialize, Serialize};

use super::range::{is_fraction, is_not_negative, is_positive};
use crate::job::error::JobError;

/// The update rule and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The update rule: `sgd`, `adam` or `adamw`.
    pub kind: OptimizerKind,
    /// Learning rate before the schedule, above 0.
    pub lr: f64,
    /// Weight decay, at least 0; applies to matrices and kernels only, unless `decay_all` is set.
    #[serde(default)]
    pub weight_decay: f64,
    /// Applies weight decay to biases and normalisation weights, too.
    #[serde(default)]
    pub decay_all: bool,
    /// Momentum of `sgd`; from 0 to below 1.
    #[serde(default)]
    pub momentum: f64,
    /// Nesterov momentum of `sgd`; needs `momentum` above 0.
    #[serde(default)]
    pub nesterov: bool,
    /// Decay rates of the two moments of `adam` and `adamw`, each from 0 to below 1.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to the denominator of `adam` and `adamw`; above 0.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Scales gradients down to this global norm, above 0; no clipping if absent. The factor is that of
    /// `torch.nn.utils.clip_grad_norm_`. PyTorch adds 32-bit norms of parameters; Lockstep adds all squares in 64 bits, so the last bits
    /// may differ.
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
            let detail = format!("must be finite and at least 0, not {}", self.weight_decay);
            return refuse("optimizer.weight_decay", detail);
        }
        if !is_fraction(self.momentum) || !self.betas.iter().all(|&beta| is_fraction(beta)) {
            let found = format!("`momentum` = {} and `betas` = {:?}", self.momentum, self.betas);
            return refuse("optimizer", format!("{found} must each be from 0 to below 1"));
        }
        if self.kind != OptimizerKind::Sgd && (self.momentum != 0.0 || self.nesterov) {
            let detail = "`momentum` and `nesterov` are for `sgd` only; for `adam` and `adamw` set `betas`";
            return refuse("optimizer.momentum", detail.into());
        }
        if self.nesterov && self.momentum == 0.0 {
            return refuse("optimizer.nesterov", "needs `optimizer.momentum` above 0".into());
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants have the names of the rules")]
pub enum OptimizerKind {
    Sgd,
    Adam,
    Adamw,
}
