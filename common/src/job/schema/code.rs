//! `[code]`: what is asked of the repository.

use serde::{Deserialize, Serialize};

/// What is asked of the code's repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Accepts a work tree with uncommitted changes; that it was dirty is written into every checkpoint.
    #[serde(default)]
    pub allow_dirty: bool,
}
