//! Submodules that are checked out, each read as a repository of its own: libgit2 compares them only by what it can read itself, and
//! by what `ignore` says of them.

use std::path::{Component, PathBuf};

use git2::{Oid, Repository};

use super::{GitError, open};

/// A submodule whose repository is there.
pub(super) struct Submodule {
    /// Relative to the tree that it lies in.
    pub(super) path: PathBuf,
    pub(super) url: Option<String>,
    pub(super) repository: open::Opened,
    /// Its commit.
    pub(super) head: Oid,
    /// Whether the tree's commit, or its index, names another one.
    pub(super) is_moved: bool,
}

/// The submodules of `repository`. One that was never initialised has nothing that its commit has not, and is left out.
///
/// # Errors
/// As [`open::open`]; `NoCommit`; `NotPlain` for one that lies outside of the tree.
pub(super) fn of(repository: &Repository) -> Result<Vec<Submodule>, GitError> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let failed = |source| GitError::Git { path: root.to_owned(), source };
    let mut found = Vec::new();
    for submodule in repository.submodules().map_err(failed)? {
        let (path, recorded) = (submodule.path(), [submodule.head_id(), submodule.index_id()]);
        let full = root.join(path);
        // What only `.gitmodules` names is none, whatever lies there.
        if recorded == [None, None] || full.join(".git").symlink_metadata().is_err() {
            continue;
        }
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(GitError::NotPlain { path: full, what: "a submodule outside of the work tree".to_owned() });
        }
        let repository = open::open(&full)?;
        let head = super::head_of(&repository, &full)?;
        let is_moved = recorded.iter().any(|recorded| *recorded != Some(head));
        let url = submodule.url().ok().flatten().map(str::to_owned);
        found.push(Submodule { path: path.to_owned(), url, repository, head, is_moved });
    }
    Ok(found)
}

/// Submodules that the commit or the index names, and nothing lies there.
pub(super) fn gone(repository: &Repository) -> Result<Vec<PathBuf>, git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let submodules = repository.submodules()?;
    let named = submodules.iter().filter(|one| one.head_id().is_some() || one.index_id().is_some());
    let gone = named.filter(|one| root.join(one.path()).symlink_metadata().is_err());
    Ok(gone.map(|one| one.path().to_owned()).collect())
}
