//! The format of stored repositories: a magic number, a JSON header with entries, and the objects of all entries.

use std::io::Read;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::error::GitError;

/// An entry of a header.
pub(in crate::git) trait Container: Serialize + DeserializeOwned {
    /// Magic number at the beginning of the format.
    const MAGIC: &'static [u8];

    /// Bytes of the objects of this entry.
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

/// The longest header that [`header`] reads, in bytes.
const HEADER_BYTES: u64 = 16 << 20;

/// Reads only the entries. `from` must be at the beginning.
pub(in crate::git) fn header<T: Container>(from: &mut impl Read) -> Result<Vec<T>, GitError> {
    let no = |reason: String| GitError::NotASnapshot { reason };
    let (mut magic, mut length) = (vec![0; T::MAGIC.len()], [0; 8]);
    let read = from.read_exact(&mut magic).and_then(|()| from.read_exact(&mut length));
    read.map_err(|error| no(format!("it ends inside its header: {error}")))?;
    if magic != T::MAGIC {
        return Err(no("it has no valid magic number".to_owned()));
    }
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES {
        return Err(no(format!("its header has {length} bytes, but at most {HEADER_BYTES} are possible")));
    }
    serde_json::from_reader(from.take(length)).map_err(|error| no(error.to_string()))
}

/// The entries, and their objects one after another. Checks that the objects have the length that the entries give.
pub(in crate::git) fn read<T: Container>(bytes: &[u8]) -> Result<(Vec<T>, &[u8]), GitError> {
    let no = |reason: &str| GitError::NotASnapshot { reason: reason.to_owned() };
    let rest = bytes.strip_prefix(T::MAGIC).ok_or_else(|| no("it has no valid magic number"))?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(|| no("it ends inside its header"))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len());
    let (header, objects) = rest.split_at(length.ok_or_else(|| no("it ends inside its header"))?);
    let entries: Vec<T> = serde_json::from_slice(header).map_err(|error| no(&error.to_string()))?;
    let total = entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.bytes()));
    if total == Some(objects.len() as u64) {
        Ok((entries, objects))
    } else {
        Err(no("its objects do not have the length that its header gives"))
    }
}
