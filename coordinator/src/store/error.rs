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
    /// Written by a version whose format is not read.
    #[error("cannot use data directory `{}`; use the version that wrote it, or another directory", dir.display())]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Both formats.
        #[source]
        source: lockstep_common::formats::Unreadable,
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
