//! Data files as bytes: those that were read into memory when they were verified, and mappings of others.
//!
//! The one place that maps files.
#![expect(unsafe_code, reason = "a memory map is sound only while nobody truncates the file, which no type can say")]

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::JobFiles;
use lockstep_host::data::Opened;
use memmap2::Mmap;

use super::DataError;

/// The bytes of a file, or bytes that were computed from one.
pub(crate) enum Bytes {
    /// A file, read as its pages are touched.
    Mapped(Mmap),
    /// A file that was read and verified.
    Read(Arc<Vec<u8>>),
    /// Bytes of our own.
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Read(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A data file to read.
pub(crate) struct Source<'a> {
    path: PathBuf,
    opened: Option<&'a Opened>,
}

impl<'a> Source<'a> {
    /// The one that the job calls `name`.
    pub(crate) fn of(files: &'a JobFiles, name: &str) -> Self {
        let path = files.at(name);
        Self { opened: files.opened(&path), path }
    }

    /// Where it lies: for what is said of it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes, which must be some: those that were verified, or of a mapping of the file that was. A file that nobody verified is
    /// opened here.
    pub(crate) fn bytes(&self) -> Result<Bytes, DataError> {
        let path = &self.path;
        let bytes = match self.opened {
            Some(opened) => match opened.memory() {
                Some(memory) => Bytes::Read(Arc::clone(memory)),
                None => map(path, opened.file())?,
            },
            None => map(path, &File::open(path).map_err(|error| DataError::io(path, error))?)?,
        };
        if bytes.is_empty() { Err(DataError::Empty { path: path.clone() }) } else { Ok(bytes) }
    }
}

/// Maps `file`, which was opened at `path`.
fn map(path: &Path, file: &File) -> Result<Bytes, DataError> {
    let metadata = file.metadata().map_err(|error| DataError::io(path, error))?;
    if !metadata.is_file() {
        return Err(DataError::format(path, "a file", "it is a directory or a device"));
    }
    if metadata.len() == 0 {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    // SAFETY: the map is read-only and only read as plain bytes, for which every value is valid. A process that
    // truncates the file while a run trains on it would kill the rank process with SIGBUS, which the agent handles as
    // any other death; one that overwrites it in place changes data that the run has hashed: it is found by the file's
    // times, or when it is hashed again before the last checkpoint counts.
    let map = unsafe { Mmap::map(file) }.map_err(|error| DataError::io(path, error))?;
    Ok(Bytes::Mapped(map))
}
