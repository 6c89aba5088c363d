//! Files of a work tree that differ from its commit, including files that git was told to ignore changes of.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use git2::{IndexEntry, IndexEntryExtendedFlag, IndexEntryFlag, Repository, Status, StatusOptions};

use super::error::GitError;
use super::on_disk::{SUBMODULE, on_disk};
use super::repository::Kinds;
use super::submodules;

/// Collects the changes of the work tree of `repository`, which is at `at` in the outermost one. `changed` gets the paths that git shows,
/// and the paths of changed submodules. `unshown` gets changed files that git was told to ignore changes of, also those in submodules.
pub(super) fn changes_in(
    repository: &Repository,
    at: &Path,
    changed: &mut Vec<String>,
    unshown: &mut Vec<String>,
) -> Result<(), GitError> {
    let failed = |source| GitError::Git { path: repository.path().to_owned(), source };
    let text = |path: &Path| at.join(path).to_string_lossy().into_owned();
    for (path, _) in shown(repository).map_err(failed)? {
        changed.push(text(&path));
    }
    unshown.extend(unwatched(repository).map_err(failed)?.iter().map(|path| text(path)));
    for submodules::Submodule { path, mut repository, head, is_moved, .. } in submodules::of(repository)? {
        repository.complete(head, Kinds::Trees)?;
        let mut inside = Vec::new();
        changes_in(&repository, &at.join(&path), &mut inside, unshown)?;
        let path = text(&path);
        if (is_moved || !inside.is_empty()) && !changed.contains(&path) {
            changed.push(path);
        }
    }
    Ok(())
}

/// Paths that git shows as changed. The contents of submodules are checked separately.
pub(super) fn shown(repository: &Repository) -> Result<Vec<(PathBuf, Status)>, git2::Error> {
    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true).include_ignored(false).exclude_submodules(true);
    let (statuses, left_out) = (repository.statuses(Some(&mut options))?, left_out(repository)?);
    let of_files = statuses.iter().map(|entry| (PathBuf::from(OsStr::from_bytes(entry.path_bytes())), entry.status()));
    let mut shown: Vec<_> = of_files.collect();
    for (path, lies) in submodules::replaced(repository)? {
        if shown.iter().all(|(known, _)| *known != path) {
            let is_gone = lies == submodules::Lies::Nothing;
            shown.push((path, if is_gone { Status::WT_DELETED } else { Status::WT_TYPECHANGE }));
        }
    }
    shown.retain(|(path, _)| !left_out.contains(path.as_os_str()));
    Ok(shown)
}

/// Changed files that git was told to ignore changes of (`update-index --assume-unchanged`, `--skip-worktree`). Files that a sparse
/// checkout leaves out do not count as changed.
pub(super) fn unwatched(repository: &Repository) -> Result<Vec<PathBuf>, git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let is_skipped = |entry: &IndexEntry| entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0;
    let is_sparse = is_sparse(repository);
    let is_unwatched = |entry: &IndexEntry| entry.flags & IndexEntryFlag::VALID.bits() != 0 || is_skipped(entry);
    let is_changed = |entry: &IndexEntry| {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        match on_disk(root, path) {
            Ok(Some(found)) => found != (entry.mode, entry.id),
            Ok(None) => !(is_sparse && is_skipped(entry)),
            // An unreadable file counts as changed. Storing it fails later, with an error.
            Err(_) => true,
        }
    };
    let is_file = |entry: &IndexEntry| entry.mode != SUBMODULE;
    let index = repository.index()?;
    let entries: Vec<IndexEntry> =
        index.iter().filter(|entry| is_file(entry) && is_unwatched(entry)).filter(is_changed).collect();
    Ok(entries.into_iter().map(|entry| PathBuf::from(OsStr::from_bytes(&entry.path))).collect())
}

/// Files that a sparse checkout leaves out of the work tree. Their absence is not a change.
fn left_out(repository: &Repository) -> Result<HashSet<OsString>, git2::Error> {
    let Some(root) = repository.workdir().filter(|_| is_sparse(repository)) else { return Ok(HashSet::new()) };
    let is_left_out = |entry: &IndexEntry| {
        entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0
            && root.join(OsStr::from_bytes(&entry.path)).symlink_metadata().is_err()
    };
    let entries = repository.index()?.iter().filter(is_left_out).collect::<Vec<_>>();
    Ok(entries.into_iter().map(|entry| OsString::from_vec(entry.path)).collect())
}

/// Whether the checkout is sparse. If not, a missing file counts as deleted, even if git was told to skip it.
fn is_sparse(repository: &Repository) -> bool {
    repository.config().and_then(|config| config.get_bool("core.sparseCheckout")).unwrap_or(false)
}
