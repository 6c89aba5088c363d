//! What can go wrong in a group, by what the caller can do about it.

use std::ffi::{CString, c_char};
use std::time::Duration;

use crate::ffi;

/// Why an operation of a group or a store failed. After any but `Argument` and `Backend` the group is cut: every later
/// operation answers `Aborted`, and the peers learn of it at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The deadline passed; some member is slow, stopped or cut off.
    #[error("no answer from the group within {0:?}")]
    Timeout(Duration),
    /// A member's connection broke: its process ended, or it cut the group.
    #[error("a member of the group is gone: {0}")]
    PeerGone(String),
    /// This group was cut here, by an [`AbortHandle`](super::AbortHandle) or after an earlier failure.
    #[error("the group was cut")]
    Aborted,
    /// The arguments do not fit the group; nothing was sent.
    #[error("{0}")]
    Argument(String),
    /// Whatever else the backend says. If it failed at its work, the group is cut.
    #[error("the backend failed: {0}")]
    Backend(String),
}

/// Turns an answer of the shim into a result. `waited` is the deadline that a `Timeout` names.
pub(super) fn check(answer: *mut c_char, failure: i32, waited: Duration) -> Result<(), Error> {
    let Some(message) = ffi::take_text(answer) else { return Ok(()) };
    // c10d appends its own call stack to some messages.
    let message = message.lines().next().unwrap_or_default().to_owned();
    Err(match failure {
        1 => Error::Timeout(waited),
        2 => Error::PeerGone(message),
        3 => Error::Aborted,
        _ => Error::Backend(message),
    })
}

/// Whole milliseconds, at least 1: 0 would mean no deadline to c10d.
pub(super) fn milliseconds(deadline: Duration) -> i64 {
    // c10d adds it to a clock in nanoseconds; a year neither overflows nor comes too soon.
    const YEAR_MS: u128 = 365 * 24 * 60 * 60 * 1000;
    deadline.as_millis().clamp(1, YEAR_MS) as i64
}

/// A text as libtorch takes it.
pub(super) fn c_string(what: &str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Argument(format!("{what} `{text:?}` holds a zero byte")))
}
