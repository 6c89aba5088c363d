//! Canonical bytes: the encoding of every value that is hashed. A value has exactly one.
//!
//! The encoding is JSON with fields in the order of the struct, ordered maps, no white space and shortest round-trip floats.
//! It depends on the value alone, and every JSON parser can read it. Types that are hashed contain no hash maps.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not a canonical value of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or JSON of another type.
    #[error("not a valid {what}")]
    Malformed {
        /// Name of the expected type, for the message.
        what: &'static str,
        /// Line, column and cause.
        #[source]
        source: serde_json::Error,
    },
    /// The value decodes, but encoding it gives other bytes: somebody edited it.
    #[error("the {what} is not in canonical form: it was edited, or another program wrote it")]
    NotCanonical {
        /// Name of the expected type, for the message.
        what: &'static str,
    },
}

/// The canonical bytes of `value`.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have string keys and finite floats")
}

/// Decodes `bytes` with any white space and any order of keys.
pub fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|source| DecodeError::Malformed { what, source })
}

/// Decodes `bytes` and rejects every encoding but the canonical one.
pub fn decode<T: Serialize + DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let value: T = read(what, bytes)?;
    if encode(&value) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical { what }) }
}
