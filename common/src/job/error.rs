//! Errors of parsing and checking a job.

use crate::{quoted, shortened};

/// Why a job was rejected. Every variant but `Syntax` and `Override` names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Not TOML.
    #[error("not valid TOML: {}", shortened(detail))]
    Syntax {
        /// The parser's message, with line and column.
        detail: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{}`{}", quoted(key), nearest.as_ref().map(|n| format!(": did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The key with its path, such as `optimizer.lr`.
        key: String,
        /// The most similar known key.
        nearest: Option<String>,
    },
    /// A value of the wrong type, or a missing key.
    #[error("key `{}`: {}", quoted(key), shortened(detail))]
    Type {
        /// The key with its path.
        key: String,
        /// The expected type, and the value.
        detail: String,
    },
    /// A value that is out of range, or that contradicts another key.
    #[error("key `{key}`: {detail}")]
    Value {
        /// The key with its path.
        key: &'static str,
        /// What is wrong, with the values of all keys concerned.
        detail: String,
    },
    /// An override that is not `key=value`.
    #[error("`{}` is not an override: expected key=value, as in `steps=100` or `optimizer.lr=0.01`", quoted(text))]
    Override {
        /// The rejected text.
        text: String,
    },
}

impl JobError {
    /// The [`JobError::Value`] of `key`.
    pub(super) fn value(key: &'static str, detail: impl Into<String>) -> Self {
        Self::Value { key, detail: detail.into() }
    }
}
