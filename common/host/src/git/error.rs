//! Errors of Git repositories and of stored work trees.

use std::io;
use std::path::PathBuf;

/// Why a repository cannot be read, or a work tree cannot be stored or restored.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// libgit2 reports an error.
    #[error("cannot read the git repository of `{}`", path.display())]
    Git {
        /// The path that the caller passed.
        path: PathBuf,
        /// libgit2's error.
        #[source]
        source: git2::Error,
    },
    /// The repository has no commit.
    #[error("the git repository of `{}` has no commit yet", path.display())]
    NoCommit {
        /// The path that the caller passed.
        path: PathBuf,
    },
    /// A repository without a work tree.
    #[error("the git repository `{}` has no work tree", path.display())]
    Bare {
        /// The repository's directory.
        path: PathBuf,
    },
    /// The work tree is between two commits.
    #[error("`{}` is in the middle of {doing}: finish or abort it first", path.display())]
    Unfinished {
        /// The work tree, or the file in conflict.
        path: PathBuf,
        /// The operation in progress, such as `a merge`.
        doing: &'static str,
    },
    /// The changed files are larger than the limit.
    #[error(
        "files that differ from the commit have {total} bytes together, and at most {limit} are kept with a run; the \
         largest are {}",
        .largest.iter().map(|(path, bytes)| format!("`{}` ({bytes} bytes)", path.display())).collect::<Vec<_>>().join(", ")
    )]
    TooLarge {
        /// Bytes of all changed files.
        total: u64,
        /// Bytes allowed.
        limit: u64,
        /// The largest files with their sizes in bytes.
        largest: Vec<(PathBuf, u64)>,
    },
    /// An entry that git cannot store, or that would lead to another file on another machine.
    #[error("cannot store `{}` with the run: {what}", path.display())]
    NotPlain {
        /// Path of the entry.
        path: PathBuf,
        /// Why it cannot be stored, as a sentence that begins with `it`.
        what: String,
    },
    /// A program writes to the file.
    #[error("`{}` changed while it was read: wait until no program writes to it", path.display())]
    Changing {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// `core.worktree` names a work tree that does not contain the path.
    #[error(
        "`{}` is outside of the work tree of its git repository, which is `{}`: submit from there, or unset `core.worktree`",
        path.display(), work_tree.display()
    )]
    Elsewhere {
        /// The path that the caller passed.
        path: PathBuf,
        /// The work tree that `core.worktree` names.
        work_tree: PathBuf,
    },
    /// A repository in a format that libgit2 cannot read, or of another owner.
    #[error("cannot read the git repository of `{}`: {helps}", path.display())]
    Unsupported {
        /// The path that the caller passed.
        path: PathBuf,
        /// The reason, and what to do.
        helps: &'static str,
        /// libgit2's error.
        #[source]
        source: git2::Error,
    },
    /// A `.git` without a valid repository.
    #[error("`{}` is not a readable git repository: {why}", path.display())]
    Broken {
        /// Path of the `.git`.
        path: PathBuf,
        /// The reason, and what to do.
        why: String,
    },
    /// A partial clone whose remote does not provide the missing objects.
    #[error(
        "`{}` is a partial clone, and its remote did not provide {missing} missing objects: {said}; run `git fetch --refetch \
         --no-filter` there to complete the clone",
        path.display()
    )]
    Partial {
        /// The work tree of the clone.
        path: PathBuf,
        /// Number of missing objects.
        missing: usize,
        /// Git's error message.
        said: String,
    },
    /// The names of a work tree cannot be encoded.
    #[error("cannot encode the state of a work tree: {reason}")]
    Header {
        /// The encoder's error message.
        reason: String,
    },
    /// Bytes that are not a valid snapshot of a work tree.
    #[error("the stored work tree is not valid: {reason}")]
    NotASnapshot {
        /// What is wrong, as a sentence that begins with `it`.
        reason: String,
    },
    /// The target of a restore is not an empty directory.
    #[error("`{}` is not an empty directory", path.display())]
    Occupied {
        /// The target of the restore.
        path: PathBuf,
    },
    /// A remote does not provide the commit.
    #[error("cannot fetch commit `{commit}` from `{url}`: {said}")]
    Fetch {
        /// URL of the remote.
        url: String,
        /// Id of the commit.
        commit: String,
        /// Git's error message.
        said: String,
    },
    /// No source has the commit.
    #[error(
        "commit `{commit}` of {of} was not found; searched repositories: {}",
        if looked.is_empty() {
            "none".to_owned()
        } else {
            looked.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
        }
    )]
    NoSource {
        /// Id of the commit.
        commit: String,
        /// The work tree or submodule that needs the commit.
        of: String,
        /// The searched repositories.
        looked: Vec<PathBuf>,
    },
}
