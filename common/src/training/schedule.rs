//! The learning rate as a function of the step.

use serde::{Deserialize, Serialize};

/// The learning rate schedule. Every schedule first rises linearly over `warmup_steps`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// Stays at the optimizer's `lr`.
    Constant {
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// Falls linearly to `end_factor × lr` at the last step.
    Linear {
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup_steps: u64,
        /// Share of `lr` at the last step.
        #[serde(default)]
        end_factor: f64,
    },
    /// Falls along half a cosine to `end_factor × lr` at the last step.
    Cosine {
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup_steps: u64,
        /// Share of `lr` at the last step.
        #[serde(default)]
        end_factor: f64,
    },
    /// Is multiplied by `factor` every `every_steps`.
    Step {
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup_steps: u64,
        /// Steps between two multiplications, at least 1.
        every_steps: u64,
        /// Multiplier of the learning rate, above 0.
        factor: f64,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant { warmup_steps: 0 }
    }
}

impl Schedule {
    fn warmup_steps(&self) -> u64 {
        match *self {
            Self::Constant { warmup_steps }
            | Self::Linear { warmup_steps, .. }
            | Self::Cosine { warmup_steps, .. }
            | Self::Step { warmup_steps, .. } => warmup_steps,
        }
    }

    /// The learning rate of the next update when `step` of `steps` steps are completed. `base` is the optimizer's `lr`.
    pub fn lr(&self, base: f64, step: u64, steps: u64) -> f64 {
        let warmup = self.warmup_steps();
        if step < warmup {
            return base * (step + 1) as f64 / warmup as f64;
        }
        // `done` is 0 at the end of the warm-up and 1 at the last update.
        let span = steps.saturating_sub(warmup + 1).max(1);
        let done = ((step - warmup) as f64 / span as f64).min(1.0);
        match *self {
            Self::Constant { .. } => base,
            Self::Linear { end_factor, .. } => base * (1.0 - done * (1.0 - end_factor)),
            Self::Cosine { end_factor, .. } => {
                base * (end_factor + (1.0 - end_factor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
            }
            Self::Step { every_steps, factor, .. } => base * factor.powi(((step - warmup) / every_steps.max(1)) as i32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_warm_up_and_end_where_they_say() {
        let cosine = Schedule::Cosine { warmup_steps: 4, end_factor: 0.1 };
        let lrs: Vec<f64> = (0..14).map(|step| cosine.lr(2.0, step, 14)).collect();
        assert_eq!(&lrs[..5], [0.5, 1.0, 1.5, 2.0, 2.0]);
        assert!((lrs[13] - 0.2).abs() < 1e-12 && lrs[4..].windows(2).all(|pair| pair[1] < pair[0]));
        let linear = Schedule::Linear { warmup_steps: 0, end_factor: 0.0 };
        assert_eq!((linear.lr(1.0, 0, 11), linear.lr(1.0, 5, 11), linear.lr(1.0, 10, 11)), (1.0, 0.5, 0.0));
        let step = Schedule::Step { warmup_steps: 2, every_steps: 3, factor: 0.5 };
        let lrs: Vec<f64> = (0..9).map(|at| step.lr(1.0, at, 9)).collect();
        assert_eq!(lrs, [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]);
    }
}
