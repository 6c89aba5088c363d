//! Submodules that are checked out, each read as a repository of its own: libgit2 compares them only by what it can read itself, and
//! by what `ignore` says of them.

use std::fs;
use std::path::{Component, Path, PathBuf};

use git2::{Oid, Repository};

use super::error::GitError;
use super::repository;

/// A submodule whose repository is there.
pub(super) struct Submodule {
    /// Relative to the tree that it lies in.
    pub(super) path: PathBuf,
    pub(super) url: Option<String>,
    pub(super) repository: repository::Opened,
    /// Its commit.
    pub(super) head: Oid,
    /// Whether the tree's commit, or its index, names another one.
    pub(super) is_moved: bool,
}

/// What lies where a submodule belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    Nothing,
    /// As in a clone in which it was never initialised.
    EmptyDirectory,
    Repository,
    /// A directory that git takes for the submodule, and looks at no file of it.
    Files,
    /// A file or a link.
    Other,
}

impl Lies {
    /// At `path` in the work tree at `root`.
    fn at(root: &Path, path: &Path) -> Self {
        let full = root.join(path);
        if behind_link(root, path) {
            return Self::Nothing;
        }
        match fs::symlink_metadata(&full) {
            Err(_) => Self::Nothing,
            Ok(found) if !found.is_dir() => Self::Other,
            Ok(_) if full.join(".git").symlink_metadata().is_ok() => Self::Repository,
            // One that cannot be read may hold anything.
            Ok(_) if fs::read_dir(&full).is_ok_and(|mut entries| entries.next().is_none()) => Self::EmptyDirectory,
            Ok(_) => Self::Files,
        }
    }
}

/// Whether a directory on the way from `root` to `path` is a link: then git has nothing at `path`.
pub(super) fn behind_link(root: &Path, path: &Path) -> bool {
    path.ancestors().skip(1).any(|dir| !dir.as_os_str().is_empty() && root.join(dir).is_symlink())
}

/// The submodules of `repository`. One that was never initialised has nothing that its commit has not, and is left out.
///
/// # Errors
/// As [`repository::open`]; `NoCommit`; `NotPlain` for one that lies outside of the tree.
pub(super) fn of(repository: &Repository) -> Result<Vec<Submodule>, GitError> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let failed = |source| GitError::Git { path: root.to_owned(), source };
    let mut found = Vec::new();
    for submodule in repository.submodules().map_err(failed)? {
        let (path, recorded) = (submodule.path(), [submodule.head_id(), submodule.index_id()]);
        let full = root.join(path);
        // What only `.gitmodules` names is none, whatever lies there.
        if recorded == [None, None] || Lies::at(root, path) != Lies::Repository {
            continue;
        }
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(GitError::NotPlain { path: full, what: "a submodule outside of the work tree".to_owned() });
        }
        let repository = repository::open(&full)?;
        let head = repository::head_of(&repository, &full)?;
        let is_moved = recorded.iter().any(|recorded| *recorded != Some(head));
        let url = submodule.url().ok().flatten().map(str::to_owned);
        found.push(Submodule { path: path.to_owned(), url, repository, head, is_moved });
    }
    Ok(found)
}

/// Submodules that the commit or the index names, with what lies there instead of them or of an empty directory.
pub(super) fn replaced(repository: &Repository) -> Result<Vec<(PathBuf, Lies)>, git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let submodules = repository.submodules()?;
    let named = submodules.iter().filter(|one| one.head_id().is_some() || one.index_id().is_some());
    let lies = named.map(|one| (one.path().to_owned(), Lies::at(root, one.path())));
    Ok(lies.filter(|(_, lies)| !matches!(lies, Lies::Repository | Lies::EmptyDirectory)).collect())
}
