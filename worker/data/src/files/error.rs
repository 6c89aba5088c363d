//! Errors of a run's data files: a file cannot be used, or changed during training.

use std::path::PathBuf;

use lockstep_common::Digest;
use lockstep_common::listing::ListError;
use lockstep_host::data::{DataHashError, Mismatch};
use lockstep_store::BlobError;

/// A data file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant explains its fields")]
pub enum FilesError {
    /// The file cannot be read, or has other contents than at submit.
    #[error(transparent)]
    File(#[from] DataHashError),
    /// The contents differ from those at the start of training.
    #[error(
        "data file `{path}` changed during training: {mismatch}; no checkpoint was written since: put the file back, then resume \
         the last checkpoint",
        path = .0.path.display(),
        mismatch = .0
    )]
    ChangedInTraining(Mismatch),
    /// The contents are those at the start of training, but the file was written to meanwhile.
    #[error(
        "data file `{}` was changed during training, and then put back: steps may have read the other contents; no checkpoint \
         was written since: resume the last checkpoint",
        path.display()
    )]
    ChangedAndBack { path: PathBuf },
    /// The contents differ, but the file's times do not show a write.
    #[error(
        "data file `{path}` was changed during training by a program that has it mapped, so that its times did not show it: \
         {mismatch}; earlier checkpoints may depend on the other contents: put the file back, then submit the job again",
        path = .0.path.display(),
        mismatch = .0
    )]
    ChangedUnseen(Mismatch),
    /// The file is neither at the path in the job nor in the store.
    #[error(
        "data file `{}` does not exist, and this machine sees no copy in the store `{}` (digest `{digest}`): put the file back, \
         or keep a copy with `coord data add`",
        path.display(),
        store.display()
    )]
    Nowhere {
        path: PathBuf,
        store: PathBuf,
        /// Digest of the file at submit.
        digest: Digest,
    },
    /// The file does not exist, and its copy in the store cannot be used.
    #[error("data file `{}` does not exist, and its copy cannot be used", path.display())]
    Store {
        path: PathBuf,
        #[source]
        source: BlobError,
    },
    /// The list of a directory's files is missing in the store, or damaged.
    #[error("cannot read the list of the files of data directory `{}`", path.display())]
    NoList {
        path: PathBuf,
        #[source]
        source: BlobError,
    },
    /// The blob in the store is not a list of the directory's files.
    #[error("the list of the files of data directory `{}` is invalid", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: ListError,
    },
}

impl FilesError {
    /// Whether the file changed during training.
    pub fn is_change_in_training(&self) -> bool {
        matches!(self, Self::ChangedInTraining(_) | Self::ChangedAndBack { .. } | Self::ChangedUnseen(_))
    }
}
