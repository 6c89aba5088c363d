//! What is wrong with a data file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_common::Digest;
use lockstep_common::manifest::DataFile;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataHashError {
    /// No such file.
    #[error("data file `{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No bytes in it.
    #[error("data file `{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a device, a socket.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A link to a directory, in a directory.
    #[error("`{}` is a link to a directory: name the directory itself", path.display())]
    LinkToDirectory {
        /// The link.
        path: PathBuf,
    },
    /// A link in a directory to what does not lie in it, where the contents would be stored.
    #[error(
        "`{}` is a link out of `{}`, to `{}`, and its contents would be stored: put the file itself there, or remove the link",
        path.display(), dir.display(), to.display()
    )]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// Where it leads, past all links.
        to: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
    /// A name that no job could write.
    #[error("the name of `{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// What Git LFS leaves in a file's place.
    #[error("data file `{}` is a pointer of Git LFS, not the data: `git lfs pull` fetches it", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A file that is being written.
    #[error("data file `{}` changes while it is hashed: wait until nobody writes to it", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// Other contents than when the run was submitted.
    #[error("data file `{}` has changed since the run was submitted: {file}{}", file.path.display(), if *stored { "; the store has the original: move this file away, or put it back" } else { "" })]
    Changed {
        /// At submit, and now.
        file: Mismatch,
        /// Whether the store is known to have the file of the submit.
        stored: bool,
    },
    /// It cannot be read.
    #[error("cannot read data file `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A file with other contents than those that were verified.
#[derive(Debug)]
pub struct Mismatch {
    /// Where it lies.
    pub path: PathBuf,
    /// The digest that it had.
    pub expected: Digest,
    /// The bytes that it had.
    pub expected_bytes: u64,
    /// Its digest now.
    pub found: Digest,
    /// Its bytes now.
    pub found_bytes: u64,
}

impl Mismatch {
    /// `file`, of which `found_bytes` with the digest `found` lie at `path`.
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
