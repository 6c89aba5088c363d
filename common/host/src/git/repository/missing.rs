//! Fetches objects that a partial clone (`git clone --filter=..`) lacks, when they are needed.
//!
//! Git itself would fetch them into the repository, with commands that the repository's configuration may name. Here they are fetched
//! into a separate directory, by the remote's URL alone.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb, Oid, Repository};
use tempfile::TempDir;

use super::super::error::GitError;
use super::super::fetch::{Remotes, fetch_objects};

/// The kinds of objects that the caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::git) enum Kinds {
    /// Only trees, without file contents.
    Trees,
    /// Trees and file contents.
    All,
}

/// Makes the whole tree of `commit` readable; see [`complete_objects`].
pub(in crate::git) fn complete(repository: &Repository, commit: Oid, kinds: Kinds) -> Result<Vec<TempDir>, GitError> {
    if promisors(repository).is_empty() {
        return Ok(Vec::new());
    }
    let failed = |source| GitError::Git { path: place(repository), source };
    let tree = repository.find_commit(commit).map_err(failed)?.tree_id();
    complete_objects(repository, &[tree], kinds)
}

/// Makes `objects` and all objects below them readable in `repository`, for as long as the returned directories live. Does nothing if the
/// repository is not a partial clone.
///
/// # Errors
/// `Partial` if none of the remotes provides them.
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
            return Err(partial("it sent other objects".to_owned()));
        }
        let dir = tempfile::tempdir().map_err(|source| GitError::Io { path: std::env::temp_dir(), source })?;
        let mut said = None;
        for url in &urls {
            // Relative URLs are relative to the work tree.
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

/// Missing objects among `wanted` and below them, sorted.
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

/// URLs of the promisor remotes: they have the missing objects of a partial clone.
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
