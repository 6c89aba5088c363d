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
use super::schedule;
use super::world::World;
use crate::job::error::JobError;
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
    #[serde(default = "super::range::one")]
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

impl Job {
    /// What makes it sound, beyond the types of its keys.
    pub(in crate::job) fn check(&self) -> Result<(), JobError> {
        if self.name.is_empty() || self.name.chars().count() > 100 || self.name.chars().any(char::is_control) {
            return Err(JobError::value("name", "expected 1 to 100 printable characters"));
        }
        if self.seed > i64::MAX as u64 {
            return Err(JobError::value("seed", "expected at most 2^63 - 1"));
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

    /// What is refused of a new job only: a stored one that was sound stays sound.
    pub(in crate::job) fn check_new(&self) -> Result<(), JobError> {
        self.batch.check_new()?;
        self.numerics.check_new()?;
        self.model.check_new(&self.data)
    }
}
