//! One series of a run: what it means, and what is kept of it.

use lockstep_common::series::SeriesKey;
use serde::{Deserialize, Serialize};

use crate::history::{Blocks, Trail, Windows};

/// The logarithm that stands for that of zero.
pub(crate) const LN_ZERO: f32 = -700.0;

/// Values are kept within this, so that sums of them are finite too.
const HUGE: f64 = 1e30;

/// Points of a block of the loss, the gradient norm and the phases.
pub(crate) const BLOCK: usize = 8;

/// Samples of a block of memory, which is measured by the second and not by the step.
pub(crate) const MEMORY_BLOCK: usize = 4;

/// What a series means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Loss,
    GradNorm,
    LearningRate,
    EvalLoss,
    /// Another evaluation's result: only its steps matter.
    Eval,
    /// The gradient norm of one rank.
    RankNorm,
    /// Of a parameter.
    LayerGrad,
    LayerWeight,
    LayerUpdate,
    /// Seconds a step.
    Phase(Phase),
    Memory(Memory),
    Throttle,
    SmClock,
    Utilisation,
    /// The histogram of a module's outputs: the share of zeros is kept.
    Activation,
    GradHistogram,
    WeightHistogram,
    /// Of no rule.
    Other,
    /// Elements of the first tensor that was not finite.
    Origin,
}

/// Parts of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Data,
    Forward,
    Backward,
    /// What neither is a process's own work nor rare: reduction (and so waiting), optimizer, record, other.
    Rest,
    /// Only its steps matter.
    Checkpoint,
}

/// Memories that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Memory {
    Resident,
    Allocated,
    Reserved,
}

impl Role {
    /// What the series `name` means.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "loss" => Self::Loss,
            "grad_norm" => Self::GradNorm,
            "lr" => Self::LearningRate,
            "eval/loss" => Self::EvalLoss,
            "rank/grad_norm" => Self::RankNorm,
            "phase/data" => Self::Phase(Phase::Data),
            "phase/forward" => Self::Phase(Phase::Forward),
            "phase/backward" => Self::Phase(Phase::Backward),
            "phase/reduction" | "phase/optimizer" | "phase/record" | "phase/other" => Self::Phase(Phase::Rest),
            "phase/checkpoint" => Self::Phase(Phase::Checkpoint),
            "process/rss_bytes" => Self::Memory(Memory::Resident),
            "device/allocated_bytes" => Self::Memory(Memory::Allocated),
            "device/reserved_bytes" => Self::Memory(Memory::Reserved),
            "device/throttle_reasons" => Self::Throttle,
            "device/sm_clock_mhz" => Self::SmClock,
            "device/utilisation" => Self::Utilisation,
            _ => match name.split_once('/').map_or("", |(family, _)| family) {
                "eval" => Self::Eval,
                "grad_norm" => Self::LayerGrad,
                "weight_norm" => Self::LayerWeight,
                "update_ratio" => Self::LayerUpdate,
                "activation" => Self::Activation,
                "grad" => Self::GradHistogram,
                "weight" => Self::WeightHistogram,
                "not_finite" if tells_origin(name) => Self::Origin,
                _ => Self::Other,
            },
        }
    }

    /// Whether a value that is not finite is an alarm.
    pub(crate) fn must_be_finite(self) -> bool {
        matches!(
            self,
            Self::Loss
                | Self::GradNorm
                | Self::EvalLoss
                | Self::RankNorm
                | Self::LayerGrad
                | Self::LayerWeight
                | Self::LayerUpdate
                | Self::Activation
                | Self::GradHistogram
                | Self::WeightHistogram
        )
    }

    /// As it is kept: norms as logarithms, since they are compared by ratios.
    pub(crate) fn kept(self, value: f64) -> f32 {
        match self {
            Self::GradNorm | Self::RankNorm | Self::LayerGrad | Self::LayerWeight | Self::LayerUpdate => {
                if value > 0.0 { value.ln() as f32 } else { LN_ZERO }
            }
            _ => value.clamp(-HUGE, HUGE) as f32,
        }
    }
}

/// Whether it is as a run says where what is not finite began; users' own names may begin alike.
fn tells_origin(name: &str) -> bool {
    let tensor = name.strip_prefix("not_finite/").unwrap_or_default();
    let family = tensor.split_once('/').map(|(family, _)| family);
    matches!(tensor, "inputs" | "loss")
        || matches!(family, Some("weight" | "buffer" | "optimizer" | "activation" | "grad"))
}

/// A series and its history, in the forms that its role needs; the others stay empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) key: SeriesKey,
    pub(crate) role: Role,
    /// Points there were.
    pub(crate) count: u64,
    /// The count at which the detector looks again, where that is not at each block.
    pub(crate) due: u64,
    /// The step of the last point.
    pub(crate) last: Option<u32>,
    pub(crate) trail: Trail<f32>,
    pub(crate) blocks: Blocks,
    pub(crate) windows: Windows,
}

impl Slot {
    pub(crate) fn new(key: SeriesKey) -> Self {
        let role = Role::of(&key.name);
        let (blocks, windows) = match role {
            Role::Loss => (Blocks::new(BLOCK, 40), Windows::new(64, 2)),
            Role::GradNorm => (Blocks::new(BLOCK, 40), Windows::new(0, 1)),
            Role::Phase(_) => (Blocks::new(BLOCK, 8), Windows::new(0, 1)),
            Role::Memory(_) => (Blocks::new(MEMORY_BLOCK, 0), Windows::new(128, 1)),
            _ => (Blocks::new(0, 0), Windows::new(0, 1)),
        };
        Self { key, role, count: 0, due: 0, last: None, trail: Trail::default(), blocks, windows }
    }

    /// The name without its family: a parameter or a module.
    pub(crate) fn tensor(&self) -> &str {
        self.key.name.split_once('/').map_or(&self.key.name, |(_, tensor)| tensor)
    }

    pub(crate) fn part(&self) -> u32 {
        self.key.part.unwrap_or(0)
    }

    pub(crate) fn rewind(&mut self, step: u32) {
        self.last = self.last.map(|last| last.min(step));
        self.trail.rewind(step);
        self.blocks.rewind(step);
        self.windows.rewind(step);
        self.due = 0;
    }
}
