//! Stores the difference between a work tree and its commit as bytes.
//!
//! The bytes include staged, unstaged and untracked changes, deletions, modes, symbolic links, submodules with their changes, and
//! empty directories, but not files that `.gitignore` names. Contents are those on disk, without filters, so that [`super::restore`]
//! gives the same bytes under every git configuration. The repository is only read.
//!
//! ```text
//! "lockstep work tree 1\n" | length of header, u64 LE | header, JSON | objects of the tree | of its submodules
//! ```

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use git2::{
    AttrCheckFlags, Index, IndexEntry, IndexTime, ObjectType, Odb, Oid, Repository, RepositoryState, Status,
    TreeWalkMode, TreeWalkResult,
};
use serde::{Deserialize, Serialize};

use super::super::error::GitError;
use super::super::on_disk::{LINK, SUBMODULE, mode_of, there};
use super::super::remote::without_credentials;
use super::super::repository::{self, Kinds};
use super::super::status::{shown, unwatched};
use super::super::submodules::{self, Submodule};
use super::container::{self, Container};
use super::objects;
use crate::data::Stamp;

/// The most files that [`GitError::TooLarge`] names.
const NAMED: usize = 10;

/// The work tree itself, or a submodule. The work tree comes first, outer submodules come before inner ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::git) struct Part {
    /// Path of the submodule relative to the root; empty for the work tree itself.
    pub(in crate::git) path: String,
    /// URL of the submodule; `None` for the work tree itself.
    pub(in crate::git) url: Option<String>,
    pub(in crate::git) commit: String,
    /// Id of the git tree of the files on disk.
    pub(in crate::git) tree: String,
    /// Bytes of the objects that the commit does not have; 0 if there are none.
    pub(in crate::git) objects: u64,
    /// Paths of empty directories, relative to this part.
    pub(in crate::git) empty_directories: Vec<String>,
}

impl Container for Part {
    const MAGIC: &'static [u8] = b"lockstep work tree 1\n";

    fn bytes(&self) -> u64 {
        self.objects
    }
}

/// The difference between a work tree and its commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Stored form, the input of [`super::restore`].
    pub bytes: Vec<u8>,
    /// Number of files that differ from the commit, including those in submodules.
    pub files: usize,
    /// The untracked ones among these files, relative to the root.
    pub untracked: Vec<String>,
}

/// Takes a snapshot of the work tree that contains `path`. Its changed files may have at most `limit` bytes together.
///
/// # Errors
/// `TooLarge`, which names the largest files; `Unfinished` during a merge, a rebase and the like; `NotPlain` for an entry that git
/// cannot store; `Changing` for a file that changes while it is read; `Git`, `Io`.
pub fn snapshot(path: &Path, limit: u64) -> Result<Snapshot, GitError> {
    let mut repository = repository::require(path)?;
    let mut taking = Taking { limit, ..Taking::default() };
    taking.part(&mut repository, "", None)?;
    let Taking { files, untracked, parts, objects, .. } = taking;
    Ok(Snapshot { bytes: container::write(&parts, &objects)?, files: files.len(), untracked })
}

/// A snapshot that is being taken.
#[derive(Default)]
struct Taking {
    limit: u64,
    /// Changed files with their sizes in bytes.
    files: Vec<(PathBuf, u64)>,
    untracked: Vec<String>,
    parts: Vec<Part>,
    objects: Vec<u8>,
}

impl Taking {
    /// Adds the work tree of `repository`, whose path in the outermost one is `at`.
    fn part(&mut self, repository: &mut repository::Opened, at: &str, url: Option<String>) -> Result<(), GitError> {
        let root = work_dir(repository)?.to_owned();
        let failed = |source| GitError::Git { path: root.clone(), source };
        let commit = repository::head_of(repository, &root)?;
        repository.complete(commit, Kinds::All)?;
        let repository: &Repository = repository;
        let head = repository.find_commit(commit).and_then(|commit| commit.tree()).map_err(failed)?;
        // New objects stay in memory, so that the user's repository is not changed.
        let odb = repository.odb().map_err(failed)?;
        let _memory = odb.add_new_mempack_backend(1000).map_err(failed)?;

        let mut index = Index::new().map_err(failed)?;
        index.read_tree(&head).map_err(failed)?;
        let doing = unfinished(repository);
        let submodules = submodules::of(repository)?;
        let changed = match (changed_paths(repository, &head, &submodules), doing) {
            (Err(GitError::Unfinished { .. }), Some(doing)) => Err(GitError::Unfinished { path: root.clone(), doing }),
            // Without changes, the work tree is the commit, even during a merge.
            (Ok(changed), Some(doing)) if !changed.all.is_empty() => {
                Err(GitError::Unfinished { path: root.clone(), doing })
            }
            (changed, _) => changed,
        }?;
        self.untracked.extend(changed.untracked.iter().map(|path| join(at, &path.to_string_lossy())));
        let heads: HashMap<&Path, Oid> = submodules.iter().map(|one| (one.path.as_path(), one.head)).collect();
        self.count(&root, &changed.all, &heads)?;
        for path in changed.all {
            take(repository, &mut index, &root, &path, &heads)?;
        }
        let tree = index.write_tree_to(repository).map_err(failed)?;
        let mut known = HashSet::new();
        objects::below(repository, head.id(), &mut known).map_err(failed)?;
        let new = objects::below(repository, tree, &mut known).map_err(failed)?;
        let before = self.objects.len();
        objects::append(&odb, &new, &mut self.objects).map_err(failed)?;
        let empty_directories = empty_directories(repository, &root)?;
        self.parts.push(Part {
            path: at.to_owned(),
            url,
            commit: commit.to_string(),
            tree: tree.to_string(),
            objects: (self.objects.len() - before) as u64,
            empty_directories,
        });

        for Submodule { path, url, mut repository, .. } in submodules {
            let inside = path.to_str().map(|path| join(at, path));
            let inside = inside.ok_or_else(|| not_plain(&path, "it is a submodule whose name is not valid UTF-8"))?;
            let url = url.as_deref().map(without_credentials);
            self.part(&mut repository, &inside, url)?;
        }
        Ok(())
    }

    /// Rejects changed files that are too large together, before any of them is read.
    fn count(&mut self, root: &Path, changed: &[PathBuf], submodules: &HashMap<&Path, Oid>) -> Result<(), GitError> {
        for path in changed.iter().filter(|path| !submodules.contains_key(path.as_path())) {
            let bytes = fs::symlink_metadata(root.join(path)).map_or(0, |metadata| metadata.len());
            self.files.push((root.join(path), bytes));
        }
        let total: u64 = self.files.iter().map(|(_, bytes)| bytes).sum();
        if total <= self.limit {
            return Ok(());
        }
        let mut largest = self.files.clone();
        largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        largest.truncate(NAMED);
        Err(GitError::TooLarge { total, limit: self.limit, largest })
    }
}

/// The operation that is in progress in the repository, if any.
fn unfinished(repository: &Repository) -> Option<&'static str> {
    match repository.state() {
        RepositoryState::Clean | RepositoryState::Bisect => None,
        RepositoryState::Merge => Some("a merge"),
        RepositoryState::Revert | RepositoryState::RevertSequence => Some("a revert"),
        RepositoryState::CherryPick | RepositoryState::CherryPickSequence => Some("a cherry-pick"),
        RepositoryState::ApplyMailbox | RepositoryState::ApplyMailboxOrRebase => Some("applying patches"),
        RepositoryState::Rebase | RepositoryState::RebaseInteractive | RepositoryState::RebaseMerge => Some("a rebase"),
    }
}

struct Changed {
    all: Vec<PathBuf>,
    /// The untracked ones among them.
    untracked: Vec<PathBuf>,
}

/// Paths whose bytes or modes on disk differ from `head`: those that git shows, those that a filter hides from git, and submodules with
/// another commit.
fn changed_paths(
    repository: &Repository,
    head: &git2::Tree<'_>,
    submodules: &[Submodule],
) -> Result<Changed, GitError> {
    let root = work_dir(repository)?.to_owned();
    let failed = |source| GitError::Git { path: root.clone(), source };
    let replaced = submodules::replaced(repository).map_err(failed)?;
    if let Some((path, _)) = replaced.iter().find(|(_, lies)| *lies == submodules::Lies::Files) {
        let what = "it is the directory of a submodule, but has files and no git repository: move the files elsewhere, remove the \
                    directory, and run `git submodule update --init`";
        return Err(not_plain(&root.join(path), what));
    }
    let (mut changed, mut untracked, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (path, status) in shown(repository).map_err(failed)? {
        if status.contains(Status::CONFLICTED) {
            return Err(GitError::Unfinished { path: root.join(path), doing: "resolving a conflict" });
        }
        if status.contains(Status::WT_NEW) && path.as_os_str().as_bytes().ends_with(b"/") {
            let what =
                "it is a git repository of its own, and not a submodule: move it elsewhere, or name it in `.gitignore`";
            return Err(not_plain(&root.join(path), what));
        }
        if status.contains(Status::WT_NEW) {
            untracked.push(path.clone());
        }
        if seen.insert(path.clone()) {
            changed.push(path);
        }
    }
    let moved = submodules.iter().filter(|submodule| submodule.is_moved).map(|submodule| submodule.path.clone());
    let unwatched = unwatched(repository).map_err(failed)?;
    changed.extend(moved.chain(unwatched).filter(|path| seen.insert(path.clone())));
    let odb = repository.odb().map_err(failed)?;
    let mut filtered = Vec::new();
    head.walk(TreeWalkMode::PreOrder, |directory, entry| {
        if entry.kind() == Some(ObjectType::Blob) {
            let path =
                PathBuf::from(OsStr::from_bytes(directory.as_bytes())).join(OsStr::from_bytes(entry.name_bytes()));
            if !seen.contains(&path) && hides(repository, &odb, &root, &path, entry.id()) {
                filtered.push(path);
            }
        }
        TreeWalkResult::Ok
    })
    .map_err(failed)?;
    changed.extend(filtered);
    Ok(Changed { all: changed, untracked })
}

/// Whether the file at `path` differs from the blob `committed`, but a filter hides that from git.
fn hides(repository: &Repository, odb: &Odb<'_>, root: &Path, path: &Path, committed: Oid) -> bool {
    let full = root.join(path);
    let (Ok(there), Ok((bytes, _))) = (fs::symlink_metadata(&full), odb.read_header(committed)) else { return false };
    if there.len() != bytes as u64 {
        return true;
    }
    // Git's built-in filters always change the length; only a configured filter may keep it.
    let is_filtered = repository.get_attr_bytes(path, "filter", AttrCheckFlags::default()).ok().flatten().is_some();
    is_filtered && there.is_file() && Oid::hash_file(ObjectType::Blob, &full).is_ok_and(|found| found != committed)
}

/// Puts the file, link or submodule at `path` into `index`, or removes the entry if the path does not exist.
fn take(
    repository: &Repository,
    index: &mut Index,
    root: &Path,
    path: &Path,
    submodules: &HashMap<&Path, Oid>,
) -> Result<(), GitError> {
    let full = root.join(path);
    let failed = |source| GitError::Git { path: full.clone(), source };
    let io = |source| GitError::Io { path: full.clone(), source };
    let Some(metadata) = there(root, path).map_err(io)? else {
        return match index.remove(path, 0) {
            Err(error) if error.code() != git2::ErrorCode::NotFound => Err(failed(error)),
            _ => Ok(()),
        };
    };
    let (mode, id) = if metadata.is_symlink() {
        let target = fs::read_link(&full).map_err(io)?;
        if leads_out(path, &target) {
            let what = format!("it is a symbolic link out of the work tree, to `{}`", target.display());
            return Err(not_plain(&full, &what));
        }
        (LINK, repository.blob(target.as_os_str().as_bytes()).map_err(failed)?)
    } else if metadata.is_file() {
        let bytes = fs::read(&full).map_err(io)?;
        let now = fs::symlink_metadata(&full).map_err(io)?;
        if Stamp::of(&now) != Stamp::of(&metadata) || bytes.len() as u64 != metadata.len() {
            return Err(GitError::Changing { path: full });
        }
        (mode_of(&metadata), repository.blob(&bytes).map_err(failed)?)
    } else if let Some(head) = submodules.get(path).filter(|_| metadata.is_dir()) {
        (SUBMODULE, *head)
    } else if metadata.is_dir() {
        // A file was replaced by a directory, whose files are separate entries.
        index.remove(path, 0).ok();
        return Ok(());
    } else {
        return Err(not_plain(&full, "it is not a file, a directory or a symbolic link"));
    };
    let none = IndexTime::new(0, 0);
    let entry = IndexEntry {
        ctime: none,
        mtime: none,
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_bytes().to_vec(),
    };
    index.add(&entry).map_err(failed)
}

/// Empty directories that are not ignored, relative to `root`.
fn empty_directories(repository: &Repository, root: &Path) -> Result<Vec<String>, GitError> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = open.pop() {
        let full = root.join(&directory);
        let io = |source| GitError::Io { path: full.clone(), source };
        let mut empty = true;
        for entry in fs::read_dir(&full).map_err(io)? {
            let entry = entry.map_err(io)?;
            empty = false;
            let path = directory.join(entry.file_name());
            // A directory with a `.git` is a submodule, which is stored as a separate part.
            let own = entry.file_name() == ".git" || full.join(entry.file_name()).join(".git").exists();
            if entry.file_type().map_err(io)?.is_dir() && !own && !repository.is_path_ignored(&path).unwrap_or(false) {
                open.push(path);
            }
        }
        if empty && !directory.as_os_str().is_empty() {
            let name = directory.to_str();
            found.push(
                name.ok_or_else(|| not_plain(&full, "it is an empty directory whose name is not valid UTF-8"))?
                    .to_owned(),
            );
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a link at `path` to `target` leads out of the work tree. Both are paths relative to the root.
fn leads_out(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() as i64 - 1;
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return true,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn work_dir(repository: &Repository) -> Result<&Path, GitError> {
    repository.workdir().ok_or_else(|| GitError::Bare { path: repository.path().to_owned() })
}

fn not_plain(path: &Path, what: &str) -> GitError {
    GitError::NotPlain { path: path.to_owned(), what: what.to_owned() }
}

fn join(at: &str, path: &str) -> String {
    if at.is_empty() { path.to_owned() } else { format!("{at}/{path}") }
}
