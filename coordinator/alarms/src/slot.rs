//! One series of a run: its role and its history.

use lockstep_common::series::SeriesKey;
use serde::{Deserialize, Serialize};

use crate::history::{Blocks, Trail, Windows};

/// Stored in place of the logarithm of zero.
pub(crate) const LN_ZERO: f32 = -700.0;

/// Values are clamped to this magnitude, so that their sums are finite, too.
const HUGE: f64 = 1e30;

/// Points per block of the loss, the gradient norm and the phases.
pub(crate) const BLOCK: usize = 8;

/// Samples per block of memory, which is measured at intervals of time, not at each step.
pub(crate) const MEMORY_BLOCK: usize = 4;

/// The meaning of a series for the detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Loss,
    GradNorm,
    LearningRate,
    EvalLoss,
    /// Another result of an evaluation. Only its steps are used.
    Eval,
    /// The gradient norm of one rank.
    RankNorm,
    /// Gradient norm of a parameter; the next two are its weight norm and the ratio of its update to its weight.
    LayerGrad,
    LayerWeight,
    LayerUpdate,
    /// Seconds per step in one phase.
    Phase(Phase),
    Memory(Memory),
    Throttle,
    SmClock,
    Utilisation,
    /// Histograms of a module's outputs, of which only the share of zeros is stored.
    Activation,
    GradHistogram,
    WeightHistogram,
    /// Used by no detector.
    Other,
    /// Number of non-finite elements in the first tensor that had some, as found by re-running the step.
    Origin,
}

/// Phases of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Data,
    Forward,
    Backward,
    /// Phases of every step that are not a process's own work: reduction (which includes waiting), optimizer, record, other.
    Rest,
    /// Only its steps are used.
    Checkpoint,
}

/// Kinds of measured memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Memory {
    Resident,
    Allocated,
    Reserved,
}

impl Role {
    /// The role of the series `name`.
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

    /// Whether a value that is not finite raises an alarm.
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

    /// The stored form of a value: norms as logarithms, because they are compared by ratios.
    pub(crate) fn kept(self, value: f64) -> f32 {
        match self {
            Self::GradNorm | Self::RankNorm | Self::LayerGrad | Self::LayerWeight | Self::LayerUpdate => {
                if value > 0.0 { value.ln() as f32 } else { LN_ZERO }
            }
            _ => value.clamp(-HUGE, HUGE) as f32,
        }
    }
}

/// Whether a run reports the origin of a non-finite value under this name. Users may log other names with the same prefix.
fn tells_origin(name: &str) -> bool {
    let tensor = name.strip_prefix("not_finite/").unwrap_or_default();
    let family = tensor.split_once('/').map(|(family, _)| family);
    matches!(tensor, "inputs" | "loss")
        || matches!(family, Some("weight" | "buffer" | "optimizer" | "activation" | "grad"))
}

/// A series and its history in the forms that its role needs; the other forms stay empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) key: SeriesKey,
    pub(crate) role: Role,
    /// Number of finite points so far.
    pub(crate) count: u64,
    /// The count at which the detector runs next, for roles that are not examined at each block.
    pub(crate) due: u64,
    /// Step of the last point.
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

    /// The part of the name after the first `/`: a parameter or a module.
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
