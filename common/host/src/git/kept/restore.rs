//! Restores the work tree of a [`snapshot`](super::snapshot()) in a new directory.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{ObjectType, Oid, Repository};

use super::super::error::GitError;
use super::super::repository::{self, Kinds};
use super::place::Place;
use super::snapshot::Part;
use super::{container, objects, source};

/// Sources of commits, for the work tree and its submodules.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Commits that were stored with the run: bytes from [`source`](super::source()).
    pub packed: Option<Vec<u8>>,
    /// Paths of repositories, which are searched in this order.
    pub repositories: Vec<PathBuf>,
}

/// A commit that is needed to restore a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Path of the submodule relative to the root; empty for the work tree itself.
    pub path: String,
    /// URL of the submodule; `None` for the work tree itself.
    pub url: Option<String>,
    /// Id of the commit.
    pub commit: String,
}

/// The commits that are needed to restore `snapshot`, that of the work tree itself first.
///
/// # Errors
/// `NotASnapshot`.
pub fn needed(snapshot: &[u8]) -> Result<Vec<Needed>, GitError> {
    let (parts, _) = read(snapshot)?;
    Ok(parts.into_iter().map(|Part { path, url, commit, .. }| Needed { path, url, commit }).collect())
}

/// The commit of the work tree in a snapshot. Only the header is read; `from` must be at the beginning.
///
/// # Errors
/// `NotASnapshot`.
pub fn built_on(from: &mut impl Read) -> Result<String, GitError> {
    let parts: Vec<Part> = container::header(from)?;
    let whole = parts.into_iter().next().filter(|part| part.path.is_empty());
    whole
        .map(|part| part.commit)
        .ok_or_else(|| GitError::NotASnapshot { reason: "its first part is not the work tree itself".to_owned() })
}

/// Restores the work tree of `snapshot` in `target`, which must not exist or be empty: every file, mode, link and empty
/// directory. The result is a git work tree whose HEAD is the commit; uncommitted changes are uncommitted again.
///
/// # Errors
/// `NotASnapshot`; `Occupied`; `NoSource` if no source has a needed commit; `Git`, `Io`. After an error, all written files and all
/// created directories are removed; directories that existed before stay.
pub fn restore(snapshot: &[u8], target: &Path, sources: &Sources) -> Result<(), GitError> {
    let (parts, mut all) = read(snapshot)?;
    let place = Place::claim(target)?;
    let mut left = Left { kept: 2 * KEPT_BYTES, elsewhere: ELSEWHERE_BYTES };
    for part in &parts {
        let (objects, rest) = all.split_at(part.objects as usize);
        all = rest;
        if let Err(error) = restore_part(part, objects, place.path(), sources, &mut left) {
            // A partial work tree could be mistaken for a complete one.
            place.clear().map_err(|source| GitError::Io { path: target.to_owned(), source })?;
            return Err(error);
        }
    }
    Ok(())
}

/// Bytes that the files of the remaining parts may have.
struct Left {
    /// For parts whose commit is stored with the run. At submission, commits and changed files had at most [`KEPT_BYTES`] each.
    kept: u64,
    /// For parts whose commit comes from another repository.
    elsewhere: u64,
}

fn restore_part(
    part: &Part,
    objects: &[u8],
    target: &Path,
    sources: &Sources,
    left: &mut Left,
) -> Result<(), GitError> {
    let root = below(target, &part.path)?;
    let failed = |source| GitError::Git { path: root.clone(), source };
    let io = |source| GitError::Io { path: root.clone(), source };
    let (commit, tree) = (Oid::from_str(&part.commit).map_err(failed)?, Oid::from_str(&part.tree).map_err(failed)?);
    // Another part at the same place may have links, which would lead out of the directory.
    if !part.path.is_empty() && fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) {
        let reason = format!("its part `{}` would be written over another one", part.path);
        return Err(GitError::NotASnapshot { reason });
    }
    let repository = Repository::init(&root).map_err(failed)?;
    let (commit_objects, is_kept) = commit_from(sources, part, commit)?;
    objects::add(&repository, &commit_objects).map_err(failed)?;
    objects::add(&repository, objects).map_err(failed)?;
    // The parents of the commit are not stored, so the repository is shallow.
    fs::write(repository.path().join("shallow"), format!("{commit}\n")).map_err(io)?;
    repository.set_head_detached(commit).map_err(failed)?;
    let committed = repository.find_commit(commit).map_err(failed)?.tree_id();
    for tree in [tree, committed] {
        bounded(&repository, tree, part)?;
    }
    let most = if is_kept { &mut left.kept } else { &mut left.elsewhere };
    *most = most
        .checked_sub(bytes_of(&repository, tree, *most).map_err(failed)?)
        .ok_or_else(|| too_large(part, is_kept))?;
    let tree = repository.find_tree(tree).map_err(failed)?;
    let mut how = CheckoutBuilder::new();
    // The stored bytes are those on disk, so no filter may change them.
    how.force().disable_filters(true);
    repository.checkout_tree(tree.as_object(), Some(&mut how)).map_err(failed)?;
    let mut index = repository.index().map_err(failed)?;
    let committed = repository.find_tree(committed).map_err(failed)?;
    index.read_tree(&committed).and_then(|()| index.write()).map_err(failed)?;
    for directory in &part.empty_directories {
        let path = below(&root, directory)?;
        fs::create_dir_all(&path).map_err(|source| GitError::Io { path, source })?;
    }
    Ok(())
}

/// Largest value of `--code-limit`: the most bytes of changed files, and the most bytes of a commit's files, that a run stores.
pub const KEPT_BYTES: u64 = 192 << 20;

/// The most bytes of all files if the commit comes from another repository, where `--code-limit` does not apply. Real source trees are
/// smaller.
const ELSEWHERE_BYTES: u64 = 32 << 30;

/// The most nested directories of a tree. Real work trees have fewer.
const DEPTH: usize = 100;
/// The most files and directories of a tree. Real work trees have fewer.
const ENTRIES: usize = 4_000_000;

/// Rejects a tree so deep that libgit2, which is recursive, would overflow the stack, and a tree with too many entries for a disk.
fn bounded(repository: &Repository, tree: Oid, part: &Part) -> Result<(), GitError> {
    let no =
        |reason: &str| Err(GitError::NotASnapshot { reason: format!("the tree of its part `{}` {reason}", part.path) });
    let (mut open, mut entries) = (vec![(tree, 0)], 0);
    while let Some((tree, depth)) = open.pop() {
        if depth > DEPTH {
            return no(&format!("is deeper than {DEPTH} directories"));
        }
        let path = || PathBuf::from(&part.path);
        let tree = repository.find_tree(tree).map_err(|source| GitError::Git { path: path(), source })?;
        entries += tree.len();
        if entries > ENTRIES {
            return no(&format!("has more than {ENTRIES} entries"));
        }
        let below = tree.iter().filter(|entry| entry.kind() == Some(ObjectType::Tree));
        open.extend(below.map(|entry| (entry.id(), depth + 1)));
    }
    Ok(())
}

/// Bytes of all files of `tree`. A blob counts once for each of its names, which may be a million. Counting stops above `most`. The tree
/// must have passed [`bounded`].
fn bytes_of(repository: &Repository, tree: Oid, most: u64) -> Result<u64, git2::Error> {
    let (odb, mut known) = (repository.odb()?, HashMap::new());
    let (mut open, mut bytes) = (vec![tree], 0_u64);
    while let Some(tree) = open.pop() {
        for entry in &repository.find_tree(tree)? {
            match entry.kind() {
                Some(ObjectType::Tree) => open.push(entry.id()),
                Some(ObjectType::Blob) => {
                    let size = match known.entry(entry.id()) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(new) => *new.insert(odb.read_header(entry.id())?.0 as u64),
                    };
                    bytes = bytes.saturating_add(size);
                }
                _ => {}
            }
        }
        if bytes > most {
            break;
        }
    }
    Ok(bytes)
}

fn too_large(part: &Part, is_kept: bool) -> GitError {
    let most = if is_kept { 2 * KEPT_BYTES } else { ELSEWHERE_BYTES };
    let reason = format!(
        "its files up to part `{}` have more than {most} bytes, which is the limit of a stored work tree",
        part.path
    );
    GitError::NotASnapshot { reason }
}

/// The path of `name` below `root`. It contains no link, and no other process writes there, so it cannot lead out of `root`.
fn below(root: &Path, name: &str) -> Result<PathBuf, GitError> {
    let mut path = root.to_owned();
    for part in Path::new(name).components() {
        path.push(part);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            let reason = format!("`{name}` would be written through the link `{}` of another part", path.display());
            return Err(GitError::NotASnapshot { reason });
        }
    }
    Ok(path)
}

/// The objects of the commit and its tree, without its parents; and whether they come from the run's stored commits.
fn commit_from(sources: &Sources, part: &Part, commit: Oid) -> Result<(Vec<u8>, bool), GitError> {
    if let Some(packed) = &sources.packed
        && let Some(objects) = source::find(packed, &part.commit)?
    {
        return Ok((objects.to_vec(), true));
    }
    for path in &sources.repositories {
        // A partial clone whose remote does not provide the missing objects counts as one without the commit.
        if let Ok(mut repository) = repository::history_at(path)
            && repository.find_commit(commit).is_ok()
            && repository.complete(commit, Kinds::All).is_ok()
        {
            return source::objects_of(&repository, commit)
                .map(|objects| (objects, false))
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
        return Err(no("its first part is not the work tree itself"));
    }
    let mut paths = HashSet::new();
    if let Some(twice) = parts.iter().find(|part| !paths.insert(part.path.as_str())) {
        return Err(no(&format!("it has two parts at `{}`", twice.path)));
    }
    for part in &parts {
        let is_outside = |name: &str| name == ".." || name.eq_ignore_ascii_case(".git");
        let inside = |path: &str| !path.split('/').any(is_outside) && !path.starts_with('/');
        if !inside(&part.path) || !part.empty_directories.iter().all(|path| inside(path)) {
            return Err(no("it has a path outside of its tree"));
        }
    }
    Ok((parts, objects))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::git;
    use super::super::container;
    use super::super::snapshot::snapshot;
    use super::*;

    /// A snapshot comes from the user who submits, so its parts may be malicious.
    #[test]
    fn nothing_is_written_through_a_link_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (hostile, outside) = (dir.path().join("hostile"), dir.path().join("home"));
        for dir in [&hostile, &outside] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(outside.join(".bashrc"), "mine").unwrap();
        git(&hostile, &["init", "-q"]);
        std::os::unix::fs::symlink(&outside, hostile.join("sub")).unwrap();
        fs::write(hostile.join(".bashrc"), "theirs").unwrap();
        git(&hostile, &["add", "."]);
        git(&hostile, &["commit", "-q", "-m", "x"]);
        let kept = snapshot(&hostile, 1000).unwrap().bytes;
        let (parts, objects) = read(&kept).unwrap();
        let sources = Sources { packed: None, repositories: vec![hostile] };
        let restored = |change: &dyn Fn(&mut Part), second: Option<&str>| {
            let mut parts = parts.clone();
            change(&mut parts[0]);
            parts.extend(second.map(|path| Part { path: path.to_owned(), objects: 0, ..parts[0].clone() }));
            let forged = container::write(&parts, objects).unwrap();
            let to = tempfile::tempdir_in(dir.path()).unwrap();
            restore(&forged, &to.path().join("tree"), &sources)
        };
        restored(&|_| {}, None).unwrap();
        for path in ["sub", "sub/inner", "./sub"] {
            let error = restored(&|_| {}, Some(path)).unwrap_err().to_string();
            assert!(error.contains("through the link"), "{path}: {error}");
        }
        for (path, words) in [("", "two parts at ``"), (".", "over another one"), ("./", "over another one")] {
            let error = restored(&|_| {}, Some(path)).unwrap_err().to_string();
            assert!(error.contains(words), "{path}: {error}");
        }
        let error =
            restored(&|part| part.empty_directories = vec!["sub/made".to_owned()], None).unwrap_err().to_string();
        assert!(error.contains("through the link"), "{error}");
        for path in ["../out", "/out", "a/../../out", ".git/hooks", "a/.GIT"] {
            let error = restored(&|_| {}, Some(path)).unwrap_err().to_string();
            assert!(error.contains("a path outside of its tree"), "{path}: {error}");
        }
        assert_eq!(fs::read_to_string(outside.join(".bashrc")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn a_tree_that_is_too_deep_is_refused_before_it_ends_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let hostile = dir.path().join("hostile");
        fs::create_dir(&hostile).unwrap();
        git(&hostile, &["init", "-q"]);
        let nest = |levels: usize| {
            let file = hostile.join("d/".repeat(levels)).join("f");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "1").unwrap();
            git(&hostile, &["add", "."]);
            git(&hostile, &["commit", "-q", "-m", "x"]);
        };
        let sources = Sources { packed: None, repositories: vec![hostile.clone()] };
        nest(DEPTH - 10);
        let kept = snapshot(&hostile, 1000).unwrap().bytes;
        restore(&kept, &dir.path().join("deep"), &sources).unwrap();
        // `snapshot` never makes such bytes, but they can be forged.
        nest(DEPTH + 1);
        let (mut parts, objects) = read(&kept).unwrap();
        let repository = Repository::open(&hostile).unwrap();
        let head = repository.head().unwrap().peel_to_commit().unwrap();
        (parts[0].commit, parts[0].tree) = (head.id().to_string(), head.tree_id().to_string());
        let forged = container::write(&parts, objects).unwrap();
        let error = restore(&forged, &dir.path().join("deeper"), &sources).unwrap_err().to_string();
        assert!(error.contains("the tree of its part `` is deeper than 100 directories"), "{error}");
    }

    #[test]
    fn one_blob_under_many_names_is_no_tree_that_a_run_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (hostile, target) = (dir.path().join("hostile"), dir.path().join("target"));
        fs::create_dir(&hostile).unwrap();
        fs::create_dir(&target).unwrap();
        git(&hostile, &["init", "-q"]);
        let repository = Repository::open(&hostile).unwrap();
        let bytes = 4 << 20;
        let blob = repository.blob(&vec![0; bytes as usize]).unwrap();
        let tree_of = |names: u64| {
            let mut tree = repository.treebuilder(None).unwrap();
            for name in 0..names {
                tree.insert(name.to_string(), blob, 0o100_644).unwrap();
            }
            repository.find_tree(tree.write().unwrap()).unwrap()
        };
        let names = 2 * KEPT_BYTES / bytes + 1;
        let tree = tree_of(names);
        let who = git2::Signature::now("t", "t@example.org").unwrap();
        let commit = repository.commit(Some("HEAD"), &who, &who, "x", &tree, &[]).unwrap();
        assert_eq!(bytes_of(&repository, tree.id(), u64::MAX).unwrap(), names * bytes);
        let part = Part {
            path: String::new(),
            url: None,
            commit: commit.to_string(),
            tree: tree.id().to_string(),
            objects: 0,
            empty_directories: Vec::new(),
        };
        let snapshot = container::write(&[part], &[]).unwrap();
        let sources =
            Sources { packed: super::super::source::source(&hostile, u64::MAX).unwrap(), repositories: Vec::new() };
        let error = restore(&snapshot, &target, &sources).unwrap_err();
        assert!(matches!(error, GitError::NotASnapshot { .. }) && error.to_string().contains("402653184"), "{error}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "the directory that was there stays, as it was");
    }
}
