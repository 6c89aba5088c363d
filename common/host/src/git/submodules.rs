//! Checked-out submodules, each opened as a separate repository. libgit2's own comparison of submodules cannot read all formats, and it
//! respects the `ignore` setting, which may hide changes.

use std::fs;
use std::path::{Component, Path, PathBuf};

use git2::{Oid, Repository};

use super::error::GitError;
use super::repository;

/// A submodule whose repository exists.
pub(super) struct Submodule {
    /// Path relative to the work tree that contains the submodule.
    pub(super) path: PathBuf,
    pub(super) url: Option<String>,
    pub(super) repository: repository::Opened,
    /// The commit that is checked out in the submodule.
    pub(super) head: Oid,
    /// Whether the commit or the index of the outer work tree records another commit.
    pub(super) is_moved: bool,
}

/// The entry at the path of a submodule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    Nothing,
    /// The submodule was never initialised in this clone.
    EmptyDirectory,
    Repository,
    /// A directory with files, but without a repository. Git takes it for the submodule and ignores the files.
    Files,
    /// A file or a link.
    Other,
}

impl Lies {
    /// Examines `path` in the work tree at `root`.
    fn at(root: &Path, path: &Path) -> Self {
        let full = root.join(path);
        if behind_link(root, path) {
            return Self::Nothing;
        }
        match fs::symlink_metadata(&full) {
            Err(_) => Self::Nothing,
            Ok(found) if !found.is_dir() => Self::Other,
            Ok(_) if full.join(".git").symlink_metadata().is_ok() => Self::Repository,
            // An unreadable directory counts as one with files.
            Ok(_) if fs::read_dir(&full).is_ok_and(|mut entries| entries.next().is_none()) => Self::EmptyDirectory,
            Ok(_) => Self::Files,
        }
    }
}

/// Whether a directory between `root` and `path` is a link. For git, `path` does not exist then.
pub(super) fn behind_link(root: &Path, path: &Path) -> bool {
    path.ancestors().skip(1).any(|dir| !dir.as_os_str().is_empty() && root.join(dir).is_symlink())
}

/// The submodules of `repository`, without those that were never initialised: they have no changes.
///
/// # Errors
/// As [`repository::open`]; `NoCommit`; `NotPlain` for a submodule outside of the work tree.
pub(super) fn of(repository: &Repository) -> Result<Vec<Submodule>, GitError> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let failed = |source| GitError::Git { path: root.to_owned(), source };
    let mut found = Vec::new();
    for submodule in repository.submodules().map_err(failed)? {
        let (path, recorded) = (submodule.path(), [submodule.head_id(), submodule.index_id()]);
        let full = root.join(path);
        // A path that only `.gitmodules` names is not a submodule.
        if recorded == [None, None] || Lies::at(root, path) != Lies::Repository {
            continue;
        }
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            let what = "it is a submodule outside of the work tree".to_owned();
            return Err(GitError::NotPlain { path: full, what });
        }
        let repository = repository::open(&full)?;
        let head = repository::head_of(&repository, &full)?;
        let is_moved = recorded.iter().any(|recorded| *recorded != Some(head));
        let url = submodule.url().ok().flatten().map(str::to_owned);
        found.push(Submodule { path: path.to_owned(), url, repository, head, is_moved });
    }
    Ok(found)
}

/// Submodules of the commit or the index whose path has neither their repository nor an empty directory, with the entry found there.
pub(super) fn replaced(repository: &Repository) -> Result<Vec<(PathBuf, Lies)>, git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let submodules = repository.submodules()?;
    let named = submodules.iter().filter(|one| one.head_id().is_some() || one.index_id().is_some());
    let lies = named.map(|one| (one.path().to_owned(), Lies::at(root, one.path())));
    Ok(lies.filter(|(_, lies)| !matches!(lies, Lies::Repository | Lies::EmptyDirectory)).collect())
}
