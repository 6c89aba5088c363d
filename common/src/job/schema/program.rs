//! `[program]`: a training program of the user's own, in the place of a model that Lockstep brings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::data::Data;
use super::model::Model;
use crate::job::error::JobError;

/// A program that is built from the recorded commit, and trained by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Name of the binary that `build` makes: cargo's, or, with a `/` in it, its path from the job file's directory.
    pub bin: String,
    /// The shell command that builds it, run in the job file's directory.
    #[serde(default = "cargo_build")]
    pub build: String,
    /// What the program wants to know: its hyperparameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Parameter>,
}

fn cargo_build() -> String {
    "cargo build --release --locked".to_owned()
}

/// A value that only the program understands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names are TOML's types")]
pub enum Parameter {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Array(Vec<Parameter>),
    Table(BTreeMap<String, Parameter>),
}

impl Parameter {
    /// Whether there is a number in it that JSON cannot write.
    fn is_finite(&self) -> bool {
        match self {
            Self::Float(value) => value.is_finite(),
            Self::Array(values) => values.iter().all(Self::is_finite),
            Self::Table(values) => values.values().all(Self::is_finite),
            Self::Boolean(_) | Self::Integer(_) | Self::String(_) => true,
        }
    }
}

impl Program {
    /// With the sections that it takes the place of.
    pub(super) fn check(&self, model: &Model, batch: &Batch, data: &Data) -> Result<(), JobError> {
        let refuse = |key, detail: &str| Err(JobError::value(key, detail));
        if self.bin.is_empty() || self.bin.starts_with('/') || self.bin.split('/').any(|part| part == "..") {
            return refuse("program.bin", "expected the name of a binary, or its path below the job file's directory");
        }
        if self.build.trim().is_empty() {
            return refuse("program.build", "expected the command that builds the program");
        }
        if !self.parameters.values().all(Parameter::is_finite) {
            return refuse("program.parameters", "numbers must be finite");
        }
        if *model != Model::Program {
            return refuse("model.kind", "a job with `[program]` has that program's model, and no other");
        }
        if batch.loss.is_some() {
            return refuse("batch.loss", "a program computes its own loss");
        }
        if matches!(data, Data::Tokens { .. }) {
            return refuse("data.kind", "a program reads `tokens` itself: say `files`");
        }
        Ok(())
    }
}
