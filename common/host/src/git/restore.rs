//! The work tree of a [`snapshot`](super::snapshot()), again, in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{Oid, Repository};

use super::snapshot::Part;
use super::{GitError, container, objects, source};

/// Where commits may be found, for the tree itself and for its submodules.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// What [`source`](super::source()) gave.
    pub packed: Option<Vec<u8>>,
    /// Repositories by path, looked through in this order.
    pub repositories: Vec<PathBuf>,
}

/// What is needed to rebuild a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Relative to the tree's root; empty for the tree itself.
    pub path: String,
    /// Where it came from, for a submodule.
    pub url: Option<String>,
    /// The commit.
    pub commit: String,
}

/// The commits that `snapshot` builds on, its own first.
///
/// # Errors
/// `NotASnapshot`.
pub fn needed(snapshot: &[u8]) -> Result<Vec<Needed>, GitError> {
    let (parts, _) = read(snapshot)?;
    Ok(parts.into_iter().map(|Part { path, url, commit, .. }| Needed { path, url, commit }).collect())
}

/// Rebuilds the work tree of `snapshot` in `target`, which does not exist or is empty: every file, mode, link and empty
/// directory. It is a git work tree whose HEAD is the commit; what differs from it differs again.
///
/// # Errors
/// `NotASnapshot`; `Occupied`; `NoSource` if no repository has a commit that is needed; `Git`, `Io`. What was written until
/// then is removed.
pub fn restore(snapshot: &[u8], target: &Path, sources: &Sources) -> Result<(), GitError> {
    let (parts, mut all) = read(snapshot)?;
    let io = |source| GitError::Io { path: target.to_owned(), source };
    if fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) || target.is_file() {
        return Err(GitError::Occupied { path: target.to_owned() });
    }
    fs::create_dir_all(target).map_err(io)?;
    for part in &parts {
        let (objects, rest) = all.split_at(part.objects as usize);
        all = rest;
        if let Err(error) = restore_part(part, objects, target, sources) {
            // Half a tree would be taken for the whole.
            fs::remove_dir_all(target).map_err(io)?;
            return Err(error);
        }
    }
    Ok(())
}

fn restore_part(part: &Part, objects: &[u8], target: &Path, sources: &Sources) -> Result<(), GitError> {
    let root = target.join(&part.path);
    let failed = |source| GitError::Git { path: root.clone(), source };
    let io = |source| GitError::Io { path: root.clone(), source };
    let (commit, tree) = (Oid::from_str(&part.commit).map_err(failed)?, Oid::from_str(&part.tree).map_err(failed)?);
    let repository = Repository::init(&root).map_err(failed)?;
    objects::add(&repository, &commit_from(sources, part, commit)?).map_err(failed)?;
    objects::add(&repository, objects).map_err(failed)?;
    // Its parents stay where they are.
    fs::write(repository.path().join("shallow"), format!("{commit}\n")).map_err(io)?;
    repository.set_head_detached(commit).map_err(failed)?;
    let tree = repository.find_tree(tree).map_err(failed)?;
    let mut how = CheckoutBuilder::new();
    // The bytes are those of the disk that they came from.
    how.force().disable_filters(true);
    repository.checkout_tree(tree.as_object(), Some(&mut how)).map_err(failed)?;
    let mut index = repository.index().map_err(failed)?;
    let committed = repository.find_commit(commit).and_then(|commit| commit.tree()).map_err(failed)?;
    index.read_tree(&committed).and_then(|()| index.write()).map_err(failed)?;
    for directory in &part.empty_directories {
        let path = root.join(directory);
        fs::create_dir_all(&path).map_err(|source| GitError::Io { path, source })?;
    }
    Ok(())
}

/// The objects of the commit and of its tree, without its parents.
fn commit_from(sources: &Sources, part: &Part, commit: Oid) -> Result<Vec<u8>, GitError> {
    if let Some(packed) = &sources.packed
        && let Some(objects) = source::find(packed, &part.commit)?
    {
        return Ok(objects.to_vec());
    }
    for path in &sources.repositories {
        if let Ok(repository) = Repository::open(path)
            && repository.find_commit(commit).is_ok()
        {
            return source::objects_of(&repository, commit)
                .map_err(|source| GitError::Git { path: path.clone(), source });
        }
    }
    Err(GitError::NoSource {
        commit: part.commit.clone(),
        of: if part.path.is_empty() { "the work tree".to_owned() } else { format!("submodule `{}`", part.path) },
        looked: sources.repositories.clone(),
    })
}

/// The parts of a snapshot, and their objects one after another.
fn read(snapshot: &[u8]) -> Result<(Vec<Part>, &[u8]), GitError> {
    let no = |reason: &str| GitError::NotASnapshot { reason: reason.to_owned() };
    let (parts, objects): (Vec<Part>, _) = container::read(snapshot)?;
    if parts.first().is_none_or(|part| !part.path.is_empty()) {
        return Err(no("it does not begin with the tree itself"));
    }
    for part in &parts {
        let inside = |path: &str| !path.split('/').any(|name| name == ".." || name == ".git") && !path.starts_with('/');
        if !inside(&part.path) || !part.empty_directories.iter().all(|path| inside(path)) {
            return Err(no("it names a path outside of its tree"));
        }
    }
    Ok((parts, objects))
}
