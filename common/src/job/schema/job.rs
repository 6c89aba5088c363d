//! The job: the keys of `job.toml` that stand in no section, and all sections.

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::checkpoint::Checkpoint;
use super::code::Code;
use super::data::Data;
use super::eval::Eval;
use super::model::Model;
use super::numerics::Numerics;
use super::optimizer::Optimizer;
use super::program::Program;
use super::report::Report;
use super::world::World;
use crate::schedule::Schedule;

/// Everything a job says. All of it is hashed into the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What people call it.
    pub name: String,
    /// Root of every random number of the run. The first weights of a TorchScript module are not drawn from it: they are in
    /// the module's file.
    #[serde(default)]
    pub seed: u64,
    /// Optimizer steps to train for.
    pub steps: u64,
    /// Logical data-parallel ranks: seeds, sampler positions and micro-batches hang on them. Fixed for the run's life.
    #[serde(default = "one")]
    pub ranks: u32,
    /// How many processes may carry the ranks.
    #[serde(default)]
    pub world: World,
    /// What is trained.
    #[serde(default)]
    pub model: Model,
    /// A program of the user's own that brings the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// What it is trained on.
    pub data: Data,
    /// How samples are put together.
    pub batch: Batch,
    /// How gradients become updates.
    pub optimizer: Optimizer,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// Evaluation between steps; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Eval>,
    /// When to checkpoint, and what to keep.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// What fixes the bits.
    #[serde(default)]
    pub numerics: Numerics,
    /// What is reported beside loss, learning rate and gradient norm.
    #[serde(default)]
    pub report: Report,
    /// What is asked of the code's repository.
    #[serde(default)]
    pub code: Code,
}

pub(super) fn one() -> u32 {
    1
}
