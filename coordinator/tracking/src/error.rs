//! Why numbers cannot be kept or read.

use std::path::{Path, PathBuf};

/// The database of numbers is broken, or its disk is. Training and the record do not depend on it.
#[derive(Debug, thiserror::Error)]
pub enum TrackingError {
    /// It cannot be opened, read or written.
    #[error("cannot {action} `{}`", path.display())]
    Database {
        /// `open`, `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// What was read makes no sense.
    #[error("`{}` is damaged: {detail}; it can be deleted, and is made again from `reports.redb`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl TrackingError {
    pub(crate) fn database(action: &'static str, path: &Path, source: impl Into<redb::Error>) -> Self {
        Self::Database { action, path: path.to_owned(), source: Box::new(source.into()) }
    }
}
