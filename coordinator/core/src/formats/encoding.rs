//! The encoding of rows and commands: MessagePack with field names.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes are not a value of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// The bytes are not MessagePack of this type.
    #[error("cannot decode the value from MessagePack")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// The bytes are not postcard of this type (format 6).
    #[error("cannot decode the value from format 6")]
    Postcard(#[from] postcard::Error),
    /// The value is complete, but more bytes follow.
    #[error("{0} unexpected bytes after the value")]
    Trailing(usize),
}

/// Encodes `value`. Equal values have equal bytes, because the encoded types contain ordered maps only.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("our own types have string keys, and memory does not run out")
}

/// Decodes bytes that [`encode`] of this or an older version returned. Older versions may lack fields.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EncodingError> {
    let mut rest = bytes;
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))?;
    if rest.is_empty() { Ok(value) } else { Err(EncodingError::Trailing(rest.len())) }
}
