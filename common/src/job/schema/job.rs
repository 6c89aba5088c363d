//! The job: the top-level keys of `job.toml`, and all sections.

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
use super::schedule;
use super::world::World;
use crate::job::error::JobError;
use crate::schedule::Schedule;

/// All keys of a job. The job's digest covers all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Name of the run in tables, 1 to 100 printable characters. It need not be unique.
    pub name: String,
    /// Root seed of all random numbers of the run, at most 2^63 - 1. The initial weights of a TorchScript module do not depend on it:
    /// they are in the module's file.
    #[serde(default)]
    pub seed: u64,
    /// Optimizer steps to train for, from 1 to 10^12.
    pub steps: u64,
    /// Number of logical data-parallel ranks, from 1 to 65536. Seeds, sampler positions and micro-batches depend on it, so another
    /// number gives other results. Fixed for the run's life.
    #[serde(default = "super::range::one")]
    pub ranks: u32,
    /// Number of processes that host the ranks.
    #[serde(default)]
    pub world: World,
    /// The model; may be absent only if there is a `[program]`.
    #[serde(default)]
    pub model: Model,
    /// The user's program that contains the model; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Training and validation data.
    pub data: Data,
    /// Composition of batches, and the loss.
    pub batch: Batch,
    /// The update rule and its parameters.
    pub optimizer: Optimizer,
    /// Learning rate schedule.
    #[serde(default)]
    pub schedule: Schedule,
    /// Evaluation between steps; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Eval>,
    /// How often a run writes checkpoints.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Settings that determine the bits of the result.
    #[serde(default)]
    pub numerics: Numerics,
    /// Reports beside loss, learning rate and gradient norm.
    #[serde(default)]
    pub report: Report,
    /// Requirements on the Git work tree of the job file.
    #[serde(default)]
    pub code: Code,
}

impl Job {
    /// Checks the values of all keys, and the combinations of keys.
    pub(in crate::job) fn check(&self) -> Result<(), JobError> {
        if self.name.is_empty() || self.name.chars().count() > 100 || self.name.chars().any(char::is_control) {
            let name = crate::quoted(&self.name);
            let detail = format!("`{name}` is not a valid name: expected 1 to 100 printable characters");
            return Err(JobError::value("name", detail));
        }
        if self.seed > i64::MAX as u64 {
            return Err(JobError::value("seed", format!("{} is too large: at most 2^63 - 1 is possible", self.seed)));
        }
        if !(1..=1_000_000_000_000).contains(&self.steps) {
            return Err(JobError::value("steps", format!("{} is not from 1 to 10^12", self.steps)));
        }
        if !(1..=65_536).contains(&self.ranks) {
            return Err(JobError::value("ranks", format!("{} is not from 1 to 65536", self.ranks)));
        }
        self.batch.check(self.ranks)?;
        self.world.check(self.ranks)?;
        if let Some(eval) = &self.eval {
            eval.check(&self.data)?;
        }
        self.numerics.check()?;
        self.optimizer.check()?;
        schedule::check(&self.schedule)?;
        self.model.check(&self.data, self.program.is_some())?;
        if let Some(program) = &self.program {
            program.check(&self.model, &self.batch, &self.data)?;
        }
        self.model.check_reads(&self.data)?;
        self.data.check(self.program.is_some())?;
        if self.eval.is_some() { self.data.check_eval() } else { Ok(()) }
    }

    /// Limits that only new jobs must keep. A stored job of an earlier version may exceed them and stays valid.
    pub(in crate::job) fn check_new(&self) -> Result<(), JobError> {
        self.batch.check_new()?;
        self.numerics.check_new()?;
        self.model.check_new(&self.data)
    }
}
