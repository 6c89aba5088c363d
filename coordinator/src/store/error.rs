//! Errors of the coordinator's databases.

use std::path::{Path, PathBuf};

use lockstep_common::chain;
use lockstep_core::formats::UpgradeError;
use lockstep_host::durable::LockError;
use lockstep_tracking::is_damage;

/// A database of the coordinator cannot be used.
///
/// After a failed write, nothing more may be written: the process must end. A restart recovers everything durable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory is in use, or cannot be created.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// This version does not read the format of the data directory.
    #[error("cannot use data directory `{}`; use the version that wrote it, or another directory", dir.display())]
    Format {
        /// Path of the data directory.
        dir: PathBuf,
        /// Names the format, and the formats that this version reads.
        #[source]
        source: lockstep_common::formats::Unreadable,
    },
    /// A database cannot be opened or created.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The database, or the data directory.
        path: PathBuf,
        /// Error of redb or of the system.
        #[source]
        source: Box<redb::Error>,
    },
    /// A database cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Path of `state.redb` or `reports.redb`.
        path: PathBuf,
        /// Error of redb or of the system.
        #[source]
        source: Box<redb::Error>,
    },
    /// A database cannot be written, for example because the disk is full.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Path of `state.redb` or `reports.redb`.
        path: PathBuf,
        /// Error of redb or of the system.
        #[source]
        source: Box<redb::Error>,
    },
    /// The contents of a database are invalid.
    #[error("`{}` is damaged: {detail}", path.display())]
    Damaged {
        /// Path of `state.redb` or `reports.redb`.
        path: PathBuf,
        /// The invalid part, and a remedy.
        detail: String,
    },
    /// An earlier version wrote commands that it has not applied, and that only it can apply.
    #[error(
        "`{}` has commands that only the earlier version that wrote them can apply (from log index {index}): start that version once \
         more, stop it with SIGTERM, and then start this one",
        path.display()
    )]
    Unapplied {
        /// The state database.
        path: PathBuf,
        /// Log index of the first of these commands.
        index: u64,
    },
    /// A state of an earlier format cannot be converted.
    #[error("cannot convert `{}` to the current format", path.display())]
    Upgrade {
        /// The state database.
        path: PathBuf,
        /// Names the invalid row, or the error of the blob store.
        #[source]
        source: UpgradeError,
    },
    /// The writing thread has ended, after an error that an earlier call returned.
    #[error("the coordinator's database is closed after an earlier error")]
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

    /// `Damaged` with the invalid part `what`, and the remedy.
    pub(super) fn damaged(path: &Path, what: &str) -> Self {
        let detail = format!("{what}; restore all files of its directory from one backup");
        Self::Damaged { path: path.to_owned(), detail }
    }

    fn of(path: &Path, source: impl Into<redb::Error>, otherwise: fn(PathBuf, Box<redb::Error>) -> Self) -> Self {
        let source = Box::new(source.into());
        if is_damage(&source) { Self::damaged(path, &chain(&*source)) } else { otherwise(path.to_owned(), source) }
    }
}
