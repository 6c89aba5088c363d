//! Why a job was refused.

use crate::{quoted, shortened};

/// A job that was refused. Every variant names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Not TOML.
    #[error("not valid TOML: {}", shortened(detail))]
    Syntax {
        /// Where and why, as the parser says it.
        detail: String,
    },
    /// A key that no job has.
    #[error("unknown key `{}`{}", quoted(key), nearest.as_ref().map(|n| format!(": did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The key with its path.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type, or a missing key.
    #[error("key `{}`: {}", quoted(key), shortened(detail))]
    Type {
        /// The key with its path.
        key: String,
        /// What was expected.
        detail: String,
    },
    /// A value, or a combination of values, that makes no sense.
    #[error("key `{key}`: {detail}")]
    Value {
        /// The key with its path.
        key: &'static str,
        /// What is wrong, with the values.
        detail: String,
    },
    /// An override that is not `key=value`.
    #[error("`{}` is not an override: expected key=value, as in `steps=100` or `optimizer.lr=0.01`", quoted(text))]
    Override {
        /// What was given.
        text: String,
    },
}

impl JobError {
    /// What is wrong with the value of `key`.
    pub(super) fn value(key: &'static str, detail: impl Into<String>) -> Self {
        Self::Value { key, detail: detail.into() }
    }
}
