//! Files as memory: the one place that maps them.
#![expect(unsafe_code, reason = "a memory map is sound only while nobody truncates the file, which no type can say")]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use super::DataError;

/// The bytes of a file, or bytes that were computed from one.
pub(crate) enum Bytes {
    /// A file, read as its pages are touched.
    Mapped(Mmap),
    /// Bytes of our own.
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Maps `path`, which must be a file that is not empty.
pub(crate) fn map(path: &Path) -> Result<Bytes, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let metadata = file.metadata().map_err(|error| DataError::io(path, error))?;
    if !metadata.is_file() {
        return Err(DataError::format(path, "a file", "it is a directory or a device"));
    }
    if metadata.len() == 0 {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    // SAFETY: the map is read-only and only read as plain bytes, for which every value is valid. A process that
    // truncates the file while a run trains on it would kill the rank process with SIGBUS, which the agent handles as
    // any other death; one that overwrites it in place changes data that the run has hashed, and is outside its
    // contract.
    let map = unsafe { Mmap::map(&file) }.map_err(|error| DataError::io(path, error))?;
    Ok(Bytes::Mapped(map))
}
