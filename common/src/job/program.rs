//! `[program]`: a training program of the user's own, in the place of a model that Lockstep brings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::JobError;

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
    pub(super) fn check(&self) -> Result<(), JobError> {
        let refuse = |key, detail: &str| Err(JobError::Value { key, detail: detail.to_owned() });
        if self.bin.is_empty() || self.bin.starts_with('/') || self.bin.split('/').any(|part| part == "..") {
            return refuse("program.bin", "expected the name of a binary, or its path below the job file's directory");
        }
        if self.build.trim().is_empty() {
            return refuse("program.build", "expected the command that builds the program");
        }
        if !self.parameters.values().all(Parameter::is_finite) {
            return refuse("program.parameters", "numbers must be finite");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{JobSpec, Model, parse_toml};
    use super::*;

    const JOB: &str = r#"
        name = "t"
        steps = 10
        batch = { size = 8 }
        data = { kind = "files", paths = ["images", "labels.csv"] }
        optimizer = { kind = "sgd", lr = 0.1 }

        [program]
        bin = "trainer"

        [program.parameters]
        widths = [8, 16]
        noise = 0.5
        deep = { on = true, name = "x" }
    "#;

    #[test]
    fn a_program_takes_the_place_of_the_model_and_keeps_its_parameters() {
        let job = parse_toml(JOB, &["program.parameters.noise=1".to_owned()]).unwrap();
        let program = job.program.as_ref().unwrap();
        assert_eq!((&job.model, program.build.as_str()), (&Model::Program, "cargo build --release --locked"));
        assert_eq!(program.parameters["noise"], Parameter::Integer(1));
        assert_eq!(program.parameters["widths"], Parameter::Array(vec![Parameter::Integer(8), Parameter::Integer(16)]));
        assert_eq!(JobSpec::from_canonical(&job.canonical()).unwrap(), job);
        let other = parse_toml(JOB, &["program.parameters.noise=1.0".to_owned()]).unwrap();
        assert_ne!(job.digest(), other.digest());
        assert_eq!(JobSpec::from_canonical(&other.canonical()).unwrap(), other);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_key() {
        for (set, key) in [
            ("program.bin=../x", "program.bin"),
            ("program.bin=\"\"", "program.bin"),
            ("program.build=\" \"", "program.build"),
            ("program.parameters.noise=nan", "program.parameters"),
            ("model={ kind = \"mlp\", hidden = [8], outputs = 2 }", "model.kind"),
            ("data.paths=[]", "data.paths"),
            ("data.paths=[\"a\", \"a\"]", "data.paths"),
            ("batch.loss=mse", "batch.loss"),
            ("data={ kind = \"tokens\", path = \"x\" }", "data.kind"),
        ] {
            let error = parse_toml(JOB, &[set.to_owned()]).expect_err(set).to_string();
            assert!(error.starts_with(&format!("key `{key}`: ")), "{set}: {error}");
        }
        let without = JOB.replace("[program]", "[x]").replace("program.", "x.");
        assert!(parse_toml(&without, &[]).unwrap_err().to_string().contains("unknown key `x`"));
        let neither = JOB.split("[program]").next().unwrap();
        let error = parse_toml(neither, &[]).unwrap_err().to_string();
        assert!(error.starts_with("key `model`: ") && error.contains("[program]"), "{error}");
        let model = neither.to_owned() + "[model]\nkind = \"mlp\"\nhidden = [8]\noutputs = 2";
        let error = parse_toml(&model, &[]).unwrap_err().to_string();
        assert!(error.starts_with("key `data.kind`: "), "{error}");
    }
}
