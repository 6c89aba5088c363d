//! Why the store cannot be opened, read or written.

use std::path::{Path, PathBuf};

use lockstep_common::chain;
use lockstep_core::formats::UpgradeError;
use lockstep_host::durable::LockError;
use lockstep_tracking::is_damage;

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
    /// An earlier build did not apply its last commands, and only that build can.
    #[error(
        "`{}` was not closed by the earlier build that wrote it, which left commands unapplied (log index {index}): start that build on it \
         once more, end it, and then start this one",
        path.display()
    )]
    Unapplied {
        /// The file.
        path: PathBuf,
        /// The first such command.
        index: u64,
    },
    /// A state of an earlier format cannot be rewritten.
    #[error("cannot rewrite `{}` in today's format", path.display())]
    Upgrade {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: UpgradeError,
    },
    /// The writing thread is gone, after an error that was reported before.
    #[error("the store has stopped after an earlier error")]
    Stopped,
}

impl StoreError {
    pub(super) fn open(path: &Path, source: impl Into<redb::Error>) -> Self {
        Self::of(path, source, |path, source| Self::Open { path, source })
    }

    pub(super) fn read(path: &Path, source: impl Into<redb::Error>) -> Self {
        Self::of(path, source, |path, source| Self::Read { path, source })
    }

    pub(super) fn write(path: &Path, source: impl Into<redb::Error>) -> Self {
        Self::of(path, source, |path, source| Self::Write { path, source })
    }

    /// The file at `path` is damaged: `what` about it, with what to do.
    pub(super) fn damaged(path: &Path, what: &str) -> Self {
        let detail = format!("{what}; put a copy in its place, of all files of the directory at one time");
        Self::Damaged { path: path.to_owned(), detail }
    }

    fn of(path: &Path, source: impl Into<redb::Error>, otherwise: fn(PathBuf, Box<redb::Error>) -> Self) -> Self {
        let source = Box::new(source.into());
        if is_damage(&source) { Self::damaged(path, &chain(&*source)) } else { otherwise(path.to_owned(), source) }
    }
}
