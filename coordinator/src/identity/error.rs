//! Why a store is not the coordinator's.

use std::io;
use std::path::PathBuf;

use super::FILE;

/// A store that is not the coordinator's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another store, or none.
    #[error(
        "the store `{}` is not this coordinator's: {found}, and `{}` names the store `{expected}`; mount that store, or name it \
         with `--store DIR`",
        store.display(),
        remembered.display()
    )]
    Other {
        /// Where the store should be.
        store: PathBuf,
        /// What is there: `it is the store ...`, `it has no file ...`, or that it is missing.
        found: String,
        /// The file that remembers the id.
        remembered: PathBuf,
        /// The id that it holds.
        expected: String,
    },
    /// The same store, as it was before it was used in another directory.
    #[error(
        "the store `{}` is an older copy of this coordinator's: checkpoints were made elsewhere since, and are not in it; mount \
         the newest one, or name it with `--store DIR` (to go on without those checkpoints, remove `{}`)",
        store.display(),
        marks.display()
    )]
    Older {
        /// Where the store should be.
        store: PathBuf,
        /// The file that remembers the marks.
        marks: PathBuf,
    },
    /// A store without an id that has nothing of what the coordinator knows.
    #[error(
        "the store `{}` holds no checkpoint of this coordinator's, which has made some: mount the store that holds them, or name it \
         with `--store DIR` (to go on without them, write any word into `{}`)",
        store.display(),
        store.join(FILE).display()
    )]
    Empty {
        /// Where the store should be.
        store: PathBuf,
    },
    /// A file that cannot be read or written, or holds no id.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb for the message, as `read` or `write`.
        action: &'static str,
        /// The `store-id`, of the store or of the data directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
