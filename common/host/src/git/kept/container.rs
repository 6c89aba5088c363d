//! Objects with a header that says what they are: the form of what is kept of a repository.

use std::io::Read;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::error::GitError;

/// An entry of a header.
pub(in crate::git) trait Container: Serialize + DeserializeOwned {
    /// The first bytes of the whole.
    const MAGIC: &'static [u8];

    /// Bytes of this entry's objects.
    fn bytes(&self) -> u64;
}

pub(in crate::git) fn write<T: Container>(entries: &[T], objects: &[u8]) -> Result<Vec<u8>, GitError> {
    let header = serde_json::to_vec(entries).map_err(|error| GitError::Header { reason: error.to_string() })?;
    let mut bytes = T::MAGIC.to_vec();
    bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(objects);
    Ok(bytes)
}

/// Bytes of a header that is read by itself.
const HEADER_BYTES: u64 = 16 << 20;

/// The entries alone, of what `from` reads from its beginning.
pub(in crate::git) fn header<T: Container>(from: &mut impl Read) -> Result<Vec<T>, GitError> {
    let no = |reason: String| GitError::NotASnapshot { reason };
    let (mut magic, mut length) = (vec![0; T::MAGIC.len()], [0; 8]);
    let read = from.read_exact(&mut magic).and_then(|()| from.read_exact(&mut length));
    read.map_err(|error| no(format!("it ends in its header: {error}")))?;
    if magic != T::MAGIC {
        return Err(no("it does not begin as one".to_owned()));
    }
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES {
        return Err(no(format!("its header has {length} bytes, more than {HEADER_BYTES}")));
    }
    serde_json::from_reader(from.take(length)).map_err(|error| no(error.to_string()))
}

/// The entries, and their objects one after another: as long together as the entries say.
pub(in crate::git) fn read<T: Container>(bytes: &[u8]) -> Result<(Vec<T>, &[u8]), GitError> {
    let no = |reason: &str| GitError::NotASnapshot { reason: reason.to_owned() };
    let rest = bytes.strip_prefix(T::MAGIC).ok_or_else(|| no("it does not begin as one"))?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(|| no("it ends in its header"))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len());
    let (header, objects) = rest.split_at(length.ok_or_else(|| no("it ends in its header"))?);
    let entries: Vec<T> = serde_json::from_slice(header).map_err(|error| no(&error.to_string()))?;
    let total = entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.bytes()));
    if total == Some(objects.len() as u64) {
        Ok((entries, objects))
    } else {
        Err(no("its objects are not as long as it says"))
    }
}
