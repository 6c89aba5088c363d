//! `[data]`: what is trained on.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::range::is_fraction;
use crate::job::error::JobError;

/// The data set. Paths are relative to the job file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Data {
    /// A flat file of tokens, cut into windows of the model's context.
    Tokens {
        /// The file.
        path: String,
        /// Its element type.
        #[serde(default)]
        dtype: TokenType,
        /// Share of windows, at the end of the file, kept for evaluation.
        #[serde(default)]
        validation: f64,
        /// Takes the file as it is. By default a file that looks like another format (an npy array, a zip archive, text
        /// read as 16-bit tokens) is refused.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept_as_is: bool,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Images and labels in IDX format (as MNIST), plain or gzipped.
    Idx {
        /// Training images, `u8`, N × H × W.
        images: String,
        /// Training labels, `u8`, N.
        labels: String,
        /// Validation images.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_images: Option<String>,
        /// Validation labels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_labels: Option<String>,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// A table of numbers with a header row.
    Csv {
        /// The file.
        path: String,
        /// The column to predict; all others are inputs. Inputs and real targets are standardised by training mean and
        /// deviation.
        target: String,
        /// What the target is.
        #[serde(default)]
        task: Task,
        /// Share of rows kept for evaluation, chosen by the root seed.
        #[serde(default)]
        validation: f64,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Two npy arrays, the first axis the samples.
    Npy {
        /// `f4` or `u1` inputs.
        inputs: String,
        /// Integer classes or `f4` targets.
        targets: String,
        /// Share of samples kept for evaluation, chosen by the root seed.
        #[serde(default)]
        validation: f64,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Two tensors of a safetensors file, the first axis the samples.
    Safetensors {
        /// The file.
        path: String,
        /// Name of the input tensor.
        inputs: String,
        /// Name of the target tensor.
        targets: String,
        /// Share of samples kept for evaluation, chosen by the root seed.
        #[serde(default)]
        validation: f64,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Whatever the job's own program reads.
    Files {
        /// Files, and directories with all that is in them.
        paths: Vec<String>,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
}

impl Data {
    /// Its files, as written in the job.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Tokens { path, .. } | Self::Csv { path, .. } | Self::Safetensors { path, .. } => vec![path],
            Self::Npy { inputs, targets, .. } => vec![inputs, targets],
            Self::Idx { images, labels, validation_images, validation_labels, .. } => {
                let validation = validation_images.iter().chain(validation_labels);
                [images, labels].into_iter().chain(validation).map(String::as_str).collect()
            }
            Self::Files { paths, .. } => paths.iter().map(String::as_str).collect(),
        }
    }

    /// The git revision that it is taken as of; none: as it lies in the work tree.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Tokens { rev, .. }
            | Self::Csv { rev, .. }
            | Self::Safetensors { rev, .. }
            | Self::Npy { rev, .. }
            | Self::Idx { rev, .. }
            | Self::Files { rev, .. } => rev.as_deref(),
        }
    }

    /// The share of it that is kept for evaluation; where it is not a share, 0 says that there is none.
    fn validation(&self) -> f64 {
        match *self {
            Self::Tokens { validation, .. }
            | Self::Csv { validation, .. }
            | Self::Npy { validation, .. }
            | Self::Safetensors { validation, .. } => validation,
            Self::Idx { ref validation_images, .. } => {
                if validation_images.is_some() {
                    0.5
                } else {
                    0.0
                }
            }
            // The program knows.
            Self::Files { .. } => 0.5,
        }
    }

    pub(super) fn check(&self, program: bool) -> Result<(), JobError> {
        let refuse = |key, detail: String| Err(JobError::value(key, detail));
        match self {
            Self::Files { paths, .. } => {
                if !program {
                    return refuse("data.kind", "`files` needs a `[program]` that reads them".into());
                }
                let distinct: BTreeSet<&String> = paths.iter().collect();
                if paths.is_empty() || distinct.len() < paths.len() {
                    return refuse("data.paths", "expected at least one path, and each once".into());
                }
            }
            Self::Idx { validation_images, validation_labels, .. }
                if validation_images.is_some() != validation_labels.is_some() =>
            {
                return refuse("data.validation_labels", "validation images and labels come together".into());
            }
            _ => {}
        }
        let validation = self.validation();
        if !is_fraction(validation) {
            return refuse("data.validation", format!("{validation} is not from 0 to below 1"));
        }
        Ok(())
    }

    /// That there is something to evaluate on.
    pub(super) fn check_eval(&self) -> Result<(), JobError> {
        if self.validation() != 0.0 {
            return Ok(());
        }
        let keys = match self {
            Self::Idx { .. } => "`data.validation_images` and `data.validation_labels`",
            _ => "`data.validation`",
        };
        Err(JobError::value("eval", format!("there is no validation data: set {keys}")))
    }
}

/// The element type of a token file, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the types'")]
pub enum TokenType {
    #[default]
    U8,
    U16,
}

/// What a target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A class number, from 0.
    #[default]
    Classification,
    /// A real number.
    Regression,
}
