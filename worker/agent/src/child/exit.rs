//! The end of an operating-system process.

/// Exit code and last output of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, or 128 + signal.
    pub(crate) code: i32,
    /// The last lines of its output, at most 4 KiB.
    pub(crate) output: String,
}
