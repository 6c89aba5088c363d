//! The encoding of rows and commands: MessagePack with field names.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not a value of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// Not MessagePack of this type.
    #[error("not a value of the expected type")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// Not postcard of this type: bytes of format 6.
    #[error("not a value of format 6")]
    Postcard(#[from] postcard::Error),
    /// A whole value, and bytes after it.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// The bytes of `value`: a function of the value alone, as our types hold ordered maps only.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("our own types have string keys, and memory does not run out")
}

/// Reads what [`encode`] wrote, of this version or of an older one with fewer fields.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EncodingError> {
    let mut rest = bytes;
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))?;
    if rest.is_empty() { Ok(value) } else { Err(EncodingError::Trailing(rest.len())) }
}
