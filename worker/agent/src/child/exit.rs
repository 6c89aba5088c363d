//! How a process ended.

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, or 128 + signal.
    pub(crate) code: i32,
    /// The last lines that it wrote.
    pub(crate) output: String,
}
