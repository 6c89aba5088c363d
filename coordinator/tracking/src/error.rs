//! Errors of the tracking database.

use std::io;
use std::path::{Path, PathBuf};

/// Why `tracking.redb` cannot be used. Training and the record do not depend on it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "most fields are what their names say")]
pub enum TrackingError {
    /// The database cannot be opened, read or written.
    #[error("cannot {action} `{}`", path.display())]
    Database {
        /// `open`, `read`, `write` or `set aside`.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    /// A row that is not valid.
    #[error("`{}` is damaged: {detail}; the coordinator rebuilds it from `reports.redb`", path.display())]
    Damaged { path: PathBuf, detail: String },
}

impl TrackingError {
    /// Whether the file itself is damaged, so that a new file solves the problem.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Database { source, .. } => is_damage(source),
            Self::Damaged { .. } => true,
        }
    }

    pub(crate) fn database(action: &'static str, path: &Path, source: impl Into<redb::Error>) -> Self {
        Self::Database { action, path: path.to_owned(), source: Box::new(source.into()) }
    }
}

/// Whether an error of redb comes from the file's contents, not from the disk or this process.
pub fn is_damage(error: &redb::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    use redb::Error as E;
    match error {
        E::Io(error) => matches!(error.kind(), InvalidData | UnexpectedEof),
        E::Corrupted(_)
        | E::UpgradeRequired(_)
        | E::RepairAborted
        | E::TableDoesNotExist(_)
        | E::TableTypeMismatch { .. }
        | E::TypeDefinitionChanged { .. }
        | E::TableIsMultimap(_)
        | E::TableIsNotMultimap(_) => true,
        _ => false,
    }
}
