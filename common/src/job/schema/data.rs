//! `[data]`: the training and validation data.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::range::is_fraction;
use crate::job::error::JobError;

/// The data set. Paths are relative to the job file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Data {
    /// A flat file of tokens, cut into windows of the model's context length.
    Tokens {
        /// Path of the token file.
        path: String,
        /// Element type of the file, little-endian.
        #[serde(default)]
        dtype: TokenType,
        /// Share of windows, at the end of the file, that is reserved for evaluation; from 0 to below 1.
        #[serde(default)]
        validation: f64,
        /// Accepts any file contents. By default a file that looks like another format (an npy array, a zip archive, text
        /// read as 16-bit tokens) is rejected.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept_as_is: bool,
        /// Git revision to take the data from, including files that DVC tracks in it; the work tree if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Images and labels in IDX format (as MNIST), plain or gzipped.
    Idx {
        /// Training images, `u8`, N × H × W.
        images: String,
        /// Training labels, `u8`, N.
        labels: String,
        /// Validation images, `u8`, N × H × W; none if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_images: Option<String>,
        /// Validation labels, `u8`, N; required with `validation_images`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_labels: Option<String>,
        /// Git revision to take the data from, including files that DVC tracks in it; the work tree if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// A table of numbers with a header row.
    Csv {
        /// Path of the CSV file.
        path: String,
        /// The column to predict; all other columns are inputs. Inputs and regression targets are standardised by mean and
        /// deviation of the training rows.
        target: String,
        /// The meaning of the target column.
        #[serde(default)]
        task: Task,
        /// Share of rows that is reserved for evaluation, selected by the root seed; from 0 to below 1.
        #[serde(default)]
        validation: f64,
        /// Git revision to take the data from, including files that DVC tracks in it; the work tree if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Two npy arrays whose first axis counts the samples.
    Npy {
        /// `f4` or `u1` inputs.
        inputs: String,
        /// Integer classes or `f4` targets.
        targets: String,
        /// Share of samples that is reserved for evaluation, selected by the root seed; from 0 to below 1.
        #[serde(default)]
        validation: f64,
        /// Git revision to take the data from, including files that DVC tracks in it; the work tree if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Two tensors of a safetensors file whose first axis counts the samples.
    Safetensors {
        /// Path of the safetensors file.
        path: String,
        /// Name of the input tensor.
        inputs: String,
        /// Name of the target tensor.
        targets: String,
        /// Share of samples that is reserved for evaluation, selected by the root seed; from 0 to below 1.
        #[serde(default)]
        validation: f64,
        /// Git revision to take the data from, including files that DVC tracks in it; the work tree if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Files of any format, which the job's program reads.
    Files {
        /// Paths of files and directories; a directory includes everything below it.
        paths: Vec<String>,
        /// Git revision to take the data from, including files that DVC tracks in it; the work tree if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
}

impl Data {
    /// Paths of the data, as written in the job.
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

    /// The Git revision to take the data from; `None` for the work tree.
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

    /// The share that is reserved for evaluation. For kinds without such a share: 0 if there is no validation data, else 0.5.
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
            // Only the program knows whether there is validation data.
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
                    return refuse("data.paths", "must have at least one path, and no path twice".into());
                }
            }
            Self::Idx { validation_images, validation_labels, .. }
                if validation_images.is_some() != validation_labels.is_some() =>
            {
                let detail = "`data.validation_images` and `data.validation_labels` must both be set, or neither";
                return refuse("data.validation_labels", detail.into());
            }
            _ => {}
        }
        let validation = self.validation();
        if !is_fraction(validation) {
            return refuse("data.validation", format!("{validation} is not from 0 to below 1"));
        }
        Ok(())
    }

    /// Checks that there is validation data.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants have the names of the types")]
pub enum TokenType {
    #[default]
    U8,
    U16,
}

/// The meaning of a table's target column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A class number, from 0.
    #[default]
    Classification,
    /// A real number.
    Regression,
}
