//! The answer of a coordinator that is reachable, but too busy for a request.

use tonic::Status;
use tonic::metadata::MetadataValue;

/// Metadata key of such an answer. The code alone would not do: a lost connection has the same code.
const BUSY: &str = "lockstep-busy";

/// The answer to a request that the coordinator is too busy for; the client should retry soon. Its code is `Unavailable`, and
/// [`is_busy`] distinguishes it from a lost connection.
pub fn busy(words: impl Into<String>) -> Status {
    let mut status = Status::unavailable(words);
    status.metadata_mut().insert(BUSY, MetadataValue::from_static("1"));
    status
}

/// Whether `status` is an answer of [`busy`].
pub fn is_busy(status: &Status) -> bool {
    status.metadata().contains_key(BUSY)
}
