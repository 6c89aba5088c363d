//! Canonical bytes: the one encoding of a value that is hashed.
//!
//! It is JSON with the fields in the order of the struct, ordered maps, no white space and shortest round-trip floats:
//! a function of the value alone, and readable by anything. Types that are hashed hold no hash maps.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not a canonical value of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON of this type.
    #[error("not a valid {what}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The value decodes, but its one encoding is another: somebody edited it.
    #[error("the {what} is not in canonical form")]
    NotCanonical {
        /// What was expected.
        what: &'static str,
    },
}

/// The canonical bytes of `value`.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have string keys and finite floats")
}

/// Decodes `bytes`, whatever their spacing and order.
pub fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|source| DecodeError::Malformed { what, source })
}

/// Decodes `bytes`, and refuses any but the canonical encoding.
pub fn decode<T: Serialize + DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let value: T = read(what, bytes)?;
    if encode(&value) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical { what }) }
}
