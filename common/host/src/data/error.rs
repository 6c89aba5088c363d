//! Errors of data files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_common::Digest;
use lockstep_common::manifest::DataFile;

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataHashError {
    /// There is no such file.
    #[error("data file `{}` does not exist", path.display())]
    Missing {
        /// Path of the missing file.
        path: PathBuf,
    },
    /// The file has no bytes, or the directory has no files.
    #[error("data file `{}` is empty", path.display())]
    Empty {
        /// Path of the file or directory.
        path: PathBuf,
    },
    /// A directory, a device or a socket.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// Path of the entry.
        path: PathBuf,
    },
    /// A link to a directory, inside a directory of data.
    #[error("`{}` is a link to a directory: name the directory itself", path.display())]
    LinkToDirectory {
        /// Path of the link.
        path: PathBuf,
    },
    /// A link in a directory of data to a file outside of it, whose contents would be stored.
    #[error(
        "`{}` is a link out of `{}`, to `{}`, and its contents would be stored: put the file itself there, or remove the link",
        path.display(), dir.display(), to.display()
    )]
    LinkOut {
        /// Path of the link.
        path: PathBuf,
        /// Target of the link, with all links resolved.
        to: PathBuf,
        /// The directory of data.
        dir: PathBuf,
    },
    /// A name that cannot be written in a job.
    #[error("the name of `{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// Path of the file or directory.
        path: PathBuf,
    },
    /// A pointer file that stands for a file in Git LFS.
    #[error("data file `{}` is a pointer of Git LFS, not the data: run `git lfs pull`", path.display())]
    LfsPointer {
        /// Path of the pointer file.
        path: PathBuf,
    },
    /// A program writes to the file.
    #[error("data file `{}` changed while it was hashed: wait until no program writes to it", path.display())]
    Changing {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file has other contents than when the run was submitted.
    #[error("data file `{}` has changed since the run was submitted: {file}{}", file.path.display(), if *stored { "; the store has the original: move this file away, or put it back" } else { "" })]
    Changed {
        /// Size and digest at submission, and now.
        file: Mismatch,
        /// Whether the store has the original file.
        stored: bool,
    },
    /// The file cannot be read.
    #[error("cannot read data file `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// A file whose contents differ from those that were verified.
#[derive(Debug)]
pub struct Mismatch {
    /// Path of the file on this machine.
    pub path: PathBuf,
    /// The verified digest.
    pub expected: Digest,
    /// The verified size in bytes.
    pub expected_bytes: u64,
    /// The present digest.
    pub found: Digest,
    /// The present size in bytes.
    pub found_bytes: u64,
}

impl Mismatch {
    /// The mismatch of `file`: the file at `path` has `found_bytes` bytes with the digest `found`.
    pub fn of(file: &DataFile, path: &Path, (found, found_bytes): (Digest, u64)) -> Self {
        Self { path: path.to_owned(), expected: file.digest, expected_bytes: file.bytes, found, found_bytes }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, expected_bytes, found, found_bytes, .. } = self;
        write!(
            f,
            "expected {expected_bytes} bytes with digest `{expected}`, found {found_bytes} bytes with digest `{found}`"
        )
    }
}
