//! Stores the commits of a work tree and its submodules as bytes, without their history, so that a run's code can be restored without
//! the repository.
//!
//! ```text
//! "lockstep commits 1\n" | length of header, u64 LE | header, JSON | the objects of each commit
//! ```

use std::collections::HashSet;
use std::path::Path;

use git2::{ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};
use serde::{Deserialize, Serialize};

use super::super::error::GitError;
use super::super::repository::{self, Kinds};
use super::super::submodules;
use super::container::{self, Container};
use super::objects;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    commit: String,
    objects: u64,
}

impl Container for Entry {
    const MAGIC: &'static [u8] = b"lockstep commits 1\n";

    fn bytes(&self) -> u64 {
        self.objects
    }
}

/// Stores the commit of the work tree that contains `path`, and those of its submodules. `None` if their files have more than `limit`
/// bytes together.
///
/// # Errors
/// `Git`, `Header`, `Partial`.
pub fn source(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, GitError> {
    let mut repository = repository::require(path)?;
    let (mut entries, mut all, mut left) = (Vec::new(), Vec::new(), limit);
    let fits = add(&mut repository, &mut entries, &mut all, &mut left)?;
    if fits { container::write(&entries, &all).map(Some) } else { Ok(None) }
}

fn add(
    repository: &mut repository::Opened,
    entries: &mut Vec<Entry>,
    all: &mut Vec<u8>,
    left: &mut u64,
) -> Result<bool, GitError> {
    let place = repository.path().to_owned();
    let failed = |source| GitError::Git { path: place.clone(), source };
    let commit = repository::head_of(repository, &place)?;
    repository.complete(commit, Kinds::All)?;
    let bytes = bytes_of(repository, commit).map_err(failed)?;
    let Some(rest) = left.checked_sub(bytes) else { return Ok(false) };
    *left = rest;
    let objects = objects_of(repository, commit).map_err(failed)?;
    entries.push(Entry { commit: commit.to_string(), objects: objects.len() as u64 });
    all.extend_from_slice(&objects);
    for mut submodule in submodules::of(repository)? {
        if !add(&mut submodule.repository, entries, all, left)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes of all files of a commit, together.
fn bytes_of(repository: &Repository, commit: Oid) -> Result<u64, git2::Error> {
    let (odb, mut bytes) = (repository.odb()?, 0);
    repository.find_commit(commit)?.tree()?.walk(TreeWalkMode::PreOrder, |_, entry| {
        if entry.kind() == Some(ObjectType::Blob) {
            bytes += odb.read_header(entry.id()).map_or(0, |(bytes, _)| bytes as u64);
        }
        TreeWalkResult::Ok
    })?;
    Ok(bytes)
}

/// The objects of a commit and its whole tree, without its parents.
pub(in crate::git) fn objects_of(repository: &Repository, commit: Oid) -> Result<Vec<u8>, git2::Error> {
    let mut ids = vec![commit];
    ids.extend(objects::below(repository, repository.find_commit(commit)?.tree_id(), &mut HashSet::new())?);
    let mut bytes = Vec::new();
    objects::append(&repository.odb()?, &ids, &mut bytes)?;
    Ok(bytes)
}

/// The objects of `commit` in `source`, which are bytes from [`source`]; `None` if it does not have the commit.
pub(in crate::git) fn find<'a>(source: &'a [u8], commit: &str) -> Result<Option<&'a [u8]>, GitError> {
    let (entries, mut all): (Vec<Entry>, _) = container::read(source)?;
    for entry in entries {
        let (objects, rest) = all.split_at(entry.objects as usize);
        if entry.commit == commit {
            return Ok(Some(objects));
        }
        all = rest;
    }
    Ok(None)
}
