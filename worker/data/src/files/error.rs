//! Errors of a run's data files: they cannot be used, or they changed during training.

use std::path::PathBuf;

use lockstep_common::Digest;
use lockstep_common::listing::ListError;
use lockstep_host::data::{DataHashError, Mismatch};
use lockstep_store::BlobError;

/// Data files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The file itself cannot be read, or has other contents than at submit.
    #[error(transparent)]
    File(#[from] DataHashError),
    /// Other contents than when training on it began.
    #[error("data file `{path}` changed during training: {mismatch}; no checkpoint was written since: put the file back, then resume the last checkpoint", path = .0.path.display(), mismatch = .0)]
    ChangedInTraining(Mismatch),
    /// Other contents for a while; those that were verified are back.
    #[error("data file `{}` was changed during training, and then put back: steps may have read the other contents; no checkpoint was written since: resume the last checkpoint", path.display())]
    ChangedAndBack {
        /// Where it lies.
        path: PathBuf,
    },
    /// Other contents, and the times of a file that nobody wrote.
    #[error("data file `{path}` was changed during training by a program that has it mapped, so that its times did not show it: {mismatch}; earlier checkpoints may be of the other contents: put the file back, then submit the job again", path = .0.path.display(), mismatch = .0)]
    ChangedUnseen(Mismatch),
    /// Neither where the job names it nor in the store.
    #[error("data file `{}` does not exist, and this machine sees no copy in the store `{}` (digest `{digest}`): put the file back, or keep a copy with `coord data add`", path.display(), store.display())]
    Nowhere {
        /// The file.
        path: PathBuf,
        /// The store.
        store: PathBuf,
        /// Digest at submit.
        digest: Digest,
    },
    /// The copy in the store cannot be used.
    #[error("data file `{}` does not exist, and its copy cannot be used", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// The list of a directory is not in the store, or damaged.
    #[error("cannot read the list of the files of data directory `{}`", path.display())]
    NoList {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// The list of a directory is none.
    #[error("the files of data directory `{}` are not known", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ListError,
    },
}

impl FilesError {
    /// Whether a file changed under a run that trains on it.
    pub fn is_change_in_training(&self) -> bool {
        matches!(self, Self::ChangedInTraining(_) | Self::ChangedAndBack { .. } | Self::ChangedUnseen(_))
    }
}
