//! The errors of groups, by what the caller can do about them.

use std::ffi::{CString, c_char};
use std::time::Duration;

use crate::ffi;

/// Why an operation of a group or a store failed. After every error but `Argument` and `Backend` the group is cut: every later operation
/// returns `Aborted`, and the peers notice it at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The deadline passed: a member is slow or stopped, or its network is cut.
    #[error("no answer from the group within {0:?}")]
    Timeout(Duration),
    /// The connection to a member broke: its process ended, or it cut the group.
    #[error("a member of the group is gone: {0}")]
    PeerGone(String),
    /// This process cut the group, with an [`AbortHandle`](super::AbortHandle) or after an earlier failure.
    #[error("the group was cut")]
    Aborted,
    /// The arguments do not fit the group. Nothing was sent.
    #[error("{0}")]
    Argument(String),
    /// Any other error of the back end. If an operation had begun, the group is cut.
    #[error("the backend failed: {0}")]
    Backend(String),
}

/// Turns the text of an entry point into a result. `waited` is the deadline for `Timeout`.
pub(super) fn check(answer: *mut c_char, failure: i32, waited: Duration) -> Result<(), Error> {
    let Some(message) = ffi::take_text(answer) else { return Ok(()) };
    // c10d appends its call stack to some messages.
    let message = message.lines().next().unwrap_or_default().to_owned();
    Err(match failure {
        1 => Error::Timeout(waited),
        2 => Error::PeerGone(message),
        3 => Error::Aborted,
        _ => Error::Backend(message),
    })
}

/// Milliseconds, at least 1, because 0 means no deadline in c10d.
pub(super) fn milliseconds(deadline: Duration) -> i64 {
    // c10d adds the deadline to a clock in nanoseconds, which must not overflow.
    const YEAR_MS: u128 = 365 * 24 * 60 * 60 * 1000;
    deadline.as_millis().clamp(1, YEAR_MS) as i64
}

/// A text as a C string.
pub(super) fn c_string(what: &str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Argument(format!("{what} `{text:?}` contains a zero byte")))
}
