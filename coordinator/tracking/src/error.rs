//! Why numbers cannot be kept or read.

use std::io;
use std::path::{Path, PathBuf};

/// The database of numbers is broken, or its disk is. Training and the record do not depend on it.
#[derive(Debug, thiserror::Error)]
pub enum TrackingError {
    /// It cannot be opened, read or written.
    #[error("cannot {action} `{}`", path.display())]
    Database {
        /// `open`, `read`, `write` or `set aside`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// What was read makes no sense.
    #[error("`{}` is damaged: {detail}; the coordinator rebuilds it from `reports.redb`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl TrackingError {
    /// Whether the file is to blame: a new one in its place would do.
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

/// Whether what redb says is the fault of the file's contents, and neither of its disk nor of this process.
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
