//! What a store answers in the place of a blob.

use std::io;
use std::path::PathBuf;

use lockstep_common::Digest;

/// A blob that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store itself is not there.
    #[error("this machine does not see the store `{}`: mount the coordinator's store there", dir.display())]
    NoStore {
        /// Where it should be.
        dir: PathBuf,
    },
    /// No such blob.
    #[error("blob `{digest}` is missing from the store `{}`", dir.display())]
    Missing {
        /// The blob.
        digest: Digest,
        /// The store.
        dir: PathBuf,
    },
    /// Its length is not what the manifest says.
    #[error(
        "blob `{digest}` {}: {found} bytes of {expected} in `{}`",
        if found < expected { "is truncated" } else { "is longer than it was" }, path.display()
    )]
    Truncated {
        /// The blob.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// Length in the manifest.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// Its contents changed.
    #[error("blob `{digest}` is corrupt: the contents of `{}` have the digest `{found}`", path.display())]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// What its contents hash to.
        found: Digest,
    },
    /// The disk refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
