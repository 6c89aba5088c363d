//! Why a repository or a kept work tree cannot be used.

use std::io;
use std::path::PathBuf;

/// A repository that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git2 refused.
    #[error("cannot read the git repository of `{}`", path.display())]
    Git {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// Nothing was ever committed.
    #[error("the git repository of `{}` has no commit yet", path.display())]
    NoCommit {
        /// The path asked for.
        path: PathBuf,
    },
    /// A repository without a work tree.
    #[error("the git repository `{}` has no work tree", path.display())]
    Bare {
        /// The repository.
        path: PathBuf,
    },
    /// Neither this commit nor the next one yet.
    #[error("`{}` is in the middle of {doing}: finish or abort it first", path.display())]
    Unfinished {
        /// The work tree, or the file in conflict.
        path: PathBuf,
        /// A merge, a rebase, ..
        doing: &'static str,
    },
    /// Changed files that are larger than what is kept.
    #[error(
        "files that differ from the commit have {total} bytes together, and at most {limit} are kept with a run; the \
         largest are {}",
        .largest.iter().map(|(path, bytes)| format!("`{}` ({bytes} bytes)", path.display())).collect::<Vec<_>>().join(", ")
    )]
    TooLarge {
        /// Bytes of all.
        total: u64,
        /// Bytes allowed.
        limit: u64,
        /// The largest files with their bytes.
        largest: Vec<(PathBuf, u64)>,
    },
    /// What git cannot keep, or what would lead elsewhere on another machine.
    #[error("`{}` cannot be kept with a run: {what}", path.display())]
    NotPlain {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A file that is being written.
    #[error("`{}` changes while it is read: wait until nobody writes to it", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory that cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A work tree that git was told to look for elsewhere.
    #[error(
        "`{}` does not lie in the work tree of its repository, which is `{}` (`core.worktree`): submit from there, or unset it",
        path.display(), work_tree.display()
    )]
    Elsewhere {
        /// The path.
        path: PathBuf,
        /// The work tree.
        work_tree: PathBuf,
    },
    /// A repository in a form that cannot be read.
    #[error("cannot read the repository of `{}`: {helps}", path.display())]
    Unsupported {
        /// A path in it.
        path: PathBuf,
        /// What helps.
        helps: &'static str,
        /// In libgit2's words.
        #[source]
        source: git2::Error,
    },
    /// A `.git` that no repository is behind.
    #[error("`{}` is no git repository that can be read: {why}", path.display())]
    Broken {
        /// The `.git`.
        path: PathBuf,
        /// What is wrong, and what helps.
        why: String,
    },
    /// A partial clone whose remote does not give the rest.
    #[error(
        "`{}` is a partial clone, and its remote did not give {missing} objects that are not in it: {said}; `git fetch --refetch \
         --no-filter` there makes it a whole one",
        path.display()
    )]
    Partial {
        /// Its work tree.
        path: PathBuf,
        /// Objects that are not there.
        missing: usize,
        /// Why not.
        said: String,
    },
    /// Names that cannot be written down.
    #[error("cannot write down the state of a work tree: {reason}")]
    Header {
        /// Why.
        reason: String,
    },
    /// Bytes that are no snapshot of a work tree.
    #[error("not a work tree's state: {reason}")]
    NotASnapshot {
        /// Why.
        reason: String,
    },
    /// A directory where a tree would go.
    #[error("`{}` is not empty", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// A remote that does not give the commit.
    #[error("cannot fetch commit `{commit}` from `{url}`: {said}")]
    Fetch {
        /// The remote.
        url: String,
        /// The commit.
        commit: String,
        /// What git said.
        said: String,
    },
    /// Nobody has the commit.
    #[error(
        "commit `{commit}` of {of} is in none of the repositories {}",
        .looked.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
    )]
    NoSource {
        /// The commit.
        commit: String,
        /// The tree or a submodule.
        of: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
}
