//! Refusals of a coordinator that is there and has no room at the moment.

use tonic::Status;
use tonic::metadata::MetadataValue;

/// Set in the metadata of such a refusal: connections that are lost have the same code.
const BUSY: &str = "lockstep-busy";

/// The refusal of a request for which there is no room now, and that may be tried again soon: its code is `Unavailable`, and
/// [`is_busy`] tells it from a lost connection.
pub fn busy(words: impl Into<String>) -> Status {
    let mut status = Status::unavailable(words);
    status.metadata_mut().insert(BUSY, MetadataValue::from_static("1"));
    status
}

/// Whether a coordinator answers, and has no room for the request at the moment.
pub fn is_busy(status: &Status) -> bool {
    status.metadata().contains_key(BUSY)
}
