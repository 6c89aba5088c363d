//! What a partial clone (`git clone --filter=..`) left with its remote, fetched when it is needed.
//!
//! git fetches such objects into the repository, by whatever command its configuration names. Here they go into a directory beside
//! it, from the remote's URL alone.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb, Oid, Repository};
use tempfile::TempDir;

use super::super::error::GitError;
use super::super::fetch::{Remotes, fetch_objects};

/// Which objects are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::git) enum Kinds {
    /// Trees, for what needs no contents.
    Trees,
    /// Trees and contents.
    All,
}

/// Makes all of the tree of `commit` readable; see [`complete_objects`].
pub(in crate::git) fn complete(repository: &Repository, commit: Oid, kinds: Kinds) -> Result<Vec<TempDir>, GitError> {
    if promisors(repository).is_empty() {
        return Ok(Vec::new());
    }
    let failed = |source| GitError::Git { path: place(repository), source };
    let tree = repository.find_commit(commit).map_err(failed)?.tree_id();
    complete_objects(repository, &[tree], kinds)
}

/// Makes `objects` and all below them readable in `repository`, for as long as the directories live that come back. Nothing is looked at
/// where it is no partial clone.
///
/// # Errors
/// `Partial` if none of its remotes gives them.
pub(in crate::git) fn complete_objects(
    repository: &Repository,
    objects: &[Oid],
    kinds: Kinds,
) -> Result<Vec<TempDir>, GitError> {
    let urls = promisors(repository);
    let failed = |source| GitError::Git { path: place(repository), source };
    let (odb, mut kept, mut before) = (repository.odb().map_err(failed)?, Vec::new(), Vec::new());
    while !urls.is_empty() {
        let missing = absent(repository, &odb, objects, kinds).map_err(failed)?;
        if missing.is_empty() {
            break;
        }
        let partial = |said: String| GitError::Partial { path: place(repository), missing: missing.len(), said };
        if missing == before {
            return Err(partial("it gave others".to_owned()));
        }
        let dir = tempfile::tempdir().map_err(|source| GitError::Io { path: std::env::temp_dir(), source })?;
        let mut said = None;
        for url in &urls {
            // Relative URLs begin at the work tree.
            match fetch_objects(dir.path(), &Remotes::of_a_person(), url, &missing, &place(repository)) {
                Ok(()) => {
                    said = None;
                    break;
                }
                Err(error) => said = Some(error),
            }
        }
        if let Some(said) = said {
            return Err(partial(said));
        }
        let objects = dir.path().join("objects");
        odb.add_disk_alternate(&objects.to_string_lossy()).map_err(failed)?;
        kept.push(dir);
        before = missing;
    }
    Ok(kept)
}

/// Objects among `wanted` and below them that are not there, sorted.
fn absent(repository: &Repository, odb: &Odb<'_>, wanted: &[Oid], kinds: Kinds) -> Result<Vec<Oid>, git2::Error> {
    let (mut open, mut seen, mut absent) = (wanted.to_vec(), HashSet::new(), Vec::new());
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        if !odb.exists(id) {
            absent.push(id);
            continue;
        }
        if odb.read_header(id)?.1 != ObjectType::Tree {
            continue;
        }
        for entry in &repository.find_tree(id)? {
            match entry.kind() {
                Some(ObjectType::Tree) => open.push(entry.id()),
                Some(ObjectType::Blob) if kinds == Kinds::All => open.push(entry.id()),
                _ => {}
            }
        }
    }
    absent.sort();
    Ok(absent)
}

/// URLs of the remotes that have promised the rest of a partial clone.
fn promisors(repository: &Repository) -> Vec<String> {
    let config = repository.config().and_then(|mut config| config.snapshot());
    let (Ok(config), Ok(remotes)) = (config, repository.remotes()) else { return Vec::new() };
    let names = remotes.iter().filter_map(|name| name.ok().flatten());
    let promised = names.filter(|name| config.get_bool(&format!("remote.{name}.promisor")).unwrap_or_default());
    promised.filter_map(|name| repository.find_remote(name).ok()?.url().ok().map(str::to_owned)).collect()
}

fn place(repository: &Repository) -> PathBuf {
    repository.workdir().map_or_else(|| repository.path(), Path::new).to_owned()
}
