//! `[program]`: a user's training program, which takes the place of `[model]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::data::Data;
use super::model::Model;
use crate::job::error::JobError;

/// A user's program, which is built from the recorded commit and then trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The binary that `build` makes: the name of a Cargo binary, or, if it contains a `/`, a path relative to the job file's directory.
    pub bin: String,
    /// Shell command that builds the program, run in the job file's directory.
    #[serde(default = "cargo_build")]
    pub build: String,
    /// The program's hyperparameters, passed to it unchanged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Parameter>,
}

fn cargo_build() -> String {
    "cargo build --release --locked".to_owned()
}

/// A TOML value, which only the program interprets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
#[expect(missing_docs, reason = "the variants have the names of TOML's types")]
pub enum Parameter {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Array(Vec<Parameter>),
    Table(BTreeMap<String, Parameter>),
}

impl Parameter {
    /// Whether all numbers are finite: JSON cannot represent others.
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
    /// Checks the program's keys, and that no other section contradicts the program.
    pub(super) fn check(&self, model: &Model, batch: &Batch, data: &Data) -> Result<(), JobError> {
        let refuse = |key, detail: &str| Err(JobError::value(key, detail));
        if self.bin.is_empty() || self.bin.starts_with('/') || self.bin.split('/').any(|part| part == "..") {
            return refuse("program.bin", "expected the name of a binary, or its path below the job file's directory");
        }
        if self.build.trim().is_empty() {
            return refuse("program.build", "is empty: expected the shell command that builds the program");
        }
        if !self.parameters.values().all(Parameter::is_finite) {
            return refuse("program.parameters", "all numbers must be finite");
        }
        if *model != Model::Program {
            return refuse("model.kind", "the `[program]` of the job contains the model: remove `[model]`");
        }
        if batch.loss.is_some() {
            return refuse("batch.loss", "the `[program]` of the job computes the loss: remove this key");
        }
        if matches!(data, Data::Tokens { .. }) {
            return refuse("data.kind", "a `[program]` cannot have data of kind `tokens`: set `data.kind` to `files`");
        }
        Ok(())
    }
}
