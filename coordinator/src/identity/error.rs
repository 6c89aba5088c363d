//! Reasons for which a coordinator rejects a store.

use std::io;
use std::path::PathBuf;

use super::FILE;

/// The directory at the store's path cannot be used as the store of this coordinator.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory is missing, has no id, or has the id of another store.
    #[error(
        "the store `{}` is not this coordinator's: {found}, but `{}` names the store `{expected}`; mount that store, or pass its \
         path with `--store DIR`",
        store.display(),
        remembered.display()
    )]
    Other {
        /// Configured path of the store.
        store: PathBuf,
        /// A clause for the message: `it is the store ..`, `it has no file ..` or `there is no such directory`.
        found: String,
        /// Path of `DATA/store-id`.
        remembered: PathBuf,
        /// The id in `remembered`.
        expected: String,
    },
    /// A copy of the store that was made before the store's current mark was written.
    #[error(
        "the store `{}` is an older copy of this coordinator's: later checkpoints went to another copy and are missing here; mount \
         the newest copy, or pass its path with `--store DIR` (to give up the later checkpoints, delete `{}`)",
        store.display(),
        marks.display()
    )]
    Older {
        /// Configured path of the store.
        store: PathBuf,
        /// Path of `DATA/store-marks`.
        marks: PathBuf,
    },
    /// A store without an id and without any blob of this coordinator's checkpoints.
    #[error(
        "the store `{}` holds no checkpoint of this coordinator's, although the coordinator has committed some: mount the right store, \
         or pass its path with `--store DIR` (to give up those checkpoints, write any word into `{}`)",
        store.display(),
        store.join(FILE).display()
    )]
    Empty {
        /// Configured path of the store.
        store: PathBuf,
    },
    /// A file cannot be read or written, or does not contain an id.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb for the message, for example `read` or `write`.
        action: &'static str,
        /// The store, or a file of ids or marks in it or in the data directory.
        path: PathBuf,
        /// Error of the system, or the reason why the contents are invalid.
        #[source]
        source: io::Error,
    },
}
