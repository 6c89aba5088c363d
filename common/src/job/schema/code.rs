//! `[code]`: requirements on the Git work tree of the job file.

use serde::{Deserialize, Serialize};

/// Requirements on the Git work tree of the job file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Accepts a work tree with uncommitted changes. Every checkpoint records whether the work tree had such changes.
    #[serde(default)]
    pub allow_dirty: bool,
}
