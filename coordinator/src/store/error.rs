//! Why the store cannot be opened, read or written.

use std::path::PathBuf;

use lockstep_host::durable::LockError;

/// A store that cannot go on. After one of these from a write, nothing more may be written: the process ends, and a
/// restart recovers what was durable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory is in use, or cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Written by another version.
    #[error(
        "data directory `{}` has format {found}, and this program reads format {supported}: use the program that wrote it, or \
         another directory",
        dir.display()
    )]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u64,
        /// What this program reads.
        supported: u64,
    },
    /// A database cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A database cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A database cannot be written: full or broken disk.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// What was read makes no sense.
    #[error("`{}` is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The writing thread is gone, after an error that was reported before.
    #[error("the store has stopped after an earlier error")]
    Stopped,
}
