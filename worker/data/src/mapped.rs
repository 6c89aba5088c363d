//! Data files as bytes: read into memory when they were verified, or mapped.
//!
//! No other module of this crate maps files.
#![expect(unsafe_code, reason = "a memory map is sound only while nobody truncates the file, which no type can say")]

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::JobFiles;
use lockstep_host::data::Opened;
use memmap2::Mmap;

use super::DataError;

/// The bytes of a file, or bytes computed from one.
pub(crate) enum Bytes {
    /// A mapped file; the system reads its pages at their first use.
    Mapped(Mmap),
    /// The memory into which a file was read when it was verified.
    Read(Arc<Vec<u8>>),
    /// Computed bytes: an unpacked file, or a parsed table.
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
    /// The data file with the path `name` in the job.
    pub(crate) fn of(files: &'a JobFiles, name: &str) -> Self {
        let path = files.at(name);
        Self { opened: files.opened(&path), path }
    }

    /// Its path, for error messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes: the verified memory, or a mapping of the verified file. A file that was not verified is opened here.
    ///
    /// # Errors
    /// `Empty` if it has no bytes; `Missing`, `Io`; `Format` if it is not a file.
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
    // SAFETY: the map is read-only, and read only as plain bytes, for which every value is valid. If a process truncates the
    // file during training, SIGBUS kills the rank process, which the agent handles like any other death. If a process
    // overwrites the file in place, the watch finds that by the file's times, or by hashing it again before the last
    // checkpoint counts.
    let map = unsafe { Mmap::map(file) }.map_err(|error| DataError::io(path, error))?;
    Ok(Bytes::Mapped(map))
}
