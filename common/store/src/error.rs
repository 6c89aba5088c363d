//! Errors of the store.

use std::io;
use std::path::PathBuf;

use lockstep_common::Digest;

/// A blob that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The directory of the store does not exist.
    #[error("this machine does not see the store `{}`: mount the coordinator's store there", dir.display())]
    NoStore {
        /// Directory of the store.
        dir: PathBuf,
    },
    /// There is no such blob.
    #[error("blob `{digest}` is missing from the store `{}`", dir.display())]
    Missing {
        /// Name of the blob.
        digest: Digest,
        /// Directory of the store.
        dir: PathBuf,
    },
    /// The blob's file has another length than the manifest says.
    #[error(
        "blob `{digest}` {}: {found} bytes instead of {expected} in `{}`",
        if found < expected { "is truncated" } else { "is too long" }, path.display()
    )]
    Truncated {
        /// Name of the blob.
        digest: Digest,
        /// File of the blob.
        path: PathBuf,
        /// Length in the manifest, in bytes.
        expected: u64,
        /// Length of the file, in bytes.
        found: u64,
    },
    /// The blob's contents changed.
    #[error("blob `{digest}` is corrupt: the contents of `{}` have the digest `{found}`", path.display())]
    Corrupt {
        /// Name of the blob.
        digest: Digest,
        /// File of the blob.
        path: PathBuf,
        /// Digest of the present contents.
        found: Digest,
    },
    /// An operation of the file system failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}
