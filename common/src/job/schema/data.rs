//! `[data]`: what is trained on.

use serde::{Deserialize, Serialize};

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
