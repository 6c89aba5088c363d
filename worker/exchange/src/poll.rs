//! Waiting for the sockets of peers.

use std::time::Instant;

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

use crate::MeshError;

/// Calls `poll` until one of `fds` is ready, `deadline`, or a signal.
pub(crate) fn poll_until(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<(), MeshError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(MeshError::Io { operation: "poll the sockets of the peers", source: errno.into() }),
    }
}
