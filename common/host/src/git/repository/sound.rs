//! Checks a `.git` before libgit2 opens it: a broken one is an error, and so is a pipe in it.
//!
//! libgit2 ignores a broken `.git` and searches the parent directories for a repository. It opens all files without a check, and opening
//! a pipe waits for a writer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Index, Repository, RepositoryOpenFlags};

use super::super::error::GitError;
use crate::plain;

/// The longest file with a path, such as `.git` or `commondir`, in bytes.
const POINTER_BYTES: u64 = 64 << 10;

/// Files of a work tree that git reads for its own configuration.
const RULES: [&str; 3] = [".gitattributes", ".gitignore", ".gitmodules"];

/// Directories of a repository in which libgit2 opens no files.
const NEVER_OPENED: [&str; 5] = ["annex", "hooks", "lfs", "modules", "worktrees"];

/// Checks the repository that contains `path`, if there is one.
///
/// # Errors
/// `Broken`.
pub(in crate::git) fn around(path: &Path) -> Result<(), GitError> {
    let Ok(path) = path.canonicalize() else { return Ok(()) };
    match path.ancestors().find(|dir| dir.join(".git").symlink_metadata().is_ok()) {
        Some(top) => at(top),
        None => Ok(()),
    }
}

/// Checks the repository whose work tree has the root `top`, or the repository `top` itself.
///
/// # Errors
/// `Broken`.
pub(in crate::git) fn at(top: &Path) -> Result<(), GitError> {
    let own = top.join(".git");
    if own.symlink_metadata().is_err() {
        return no_pipe(top, top);
    }
    let broken = |why: String| GitError::Broken { path: own.clone(), why };
    let kind = fs::metadata(&own).map_err(|error| broken(format!("{error}; repair or remove it")))?.file_type();
    let dir = if kind.is_dir() {
        own.clone()
    } else if kind.is_file() {
        let text = pointer(&own).map_err(|error| broken(error.to_string()))?;
        let dir = text.strip_prefix("gitdir:").map(|dir| top.join(dir.trim()));
        dir.ok_or_else(|| broken("it does not begin with `gitdir:`; repair or remove it".to_owned()))?
    } else {
        return Err(broken("it is neither a directory nor a file; remove it".to_owned()));
    };
    no_pipe(&own, &dir)?;
    if let Ok(common) = pointer(&dir.join("commondir")) {
        no_pipe(&own, &dir.join(common.trim()))?;
    }
    let none: [&Path; 0] = [];
    match Repository::open_ext(top, RepositoryOpenFlags::NO_SEARCH, none) {
        Err(error) if error.code() == ErrorCode::NotFound => {
            let what = if dir.is_dir() { "has no `HEAD`, no `objects` or no `refs`" } else { "does not exist" };
            Err(broken(format!(
                "`{}` {what}; repair it (run `git status` for details), or remove `.git`",
                dir.display()
            )))
        }
        // Other errors are reported when the repository is opened.
        _ => Ok(()),
    }
}

fn pointer(path: &Path) -> io::Result<String> {
    let bytes = plain::read(&path.canonicalize()?, POINTER_BYTES)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Rejects a pipe or a device in the git directory `dir`. If `dir` cannot be listed, opening it fails later.
fn no_pipe(own: &Path, dir: &Path) -> Result<(), GitError> {
    let found = pipe(dir, &NEVER_OPENED);
    found.map_or(Ok(()), |path| {
        let why = format!("`{}` is neither a directory nor a file; remove it", path.display());
        Err(GitError::Broken { path: own.to_owned(), why })
    })
}

fn pipe(dir: &Path, without: &[&str]) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
        if kind.is_dir() {
            let skipped = without.iter().any(|name| entry.file_name() == *name);
            if let Some(found) = if skipped { None } else { pipe(&path, &[]) } {
                return Some(found);
            }
        } else if waits(kind) || (kind.is_symlink() && leads_to_pipe(&path)) {
            return Some(path);
        }
    }
    None
}

fn leads_to_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|to| waits(to.file_type()))
}

/// Whether opening an entry may wait. Opening a socket fails at once; git's own daemon has one in its directory.
fn waits(kind: FileType) -> bool {
    kind.is_fifo() || kind.is_char_device() || kind.is_block_device()
}

/// Checks the files in the work tree of `repository` that git reads for its own configuration. libgit2 opens them without a check, too.
///
/// # Errors
/// `NotPlain`.
pub(in crate::git) fn rules(repository: &Repository) -> Result<(), GitError> {
    let Some(root) = repository.workdir() else { return Ok(()) };
    let tracked = tracked_directories(repository);
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let full = root.join(&dir);
        if let Some(path) = RULES.iter().map(|name| full.join(name)).find(|path| leads_to_pipe(path)) {
            let what = "it is neither a directory nor a file, and git would read it; remove it".to_owned();
            return Err(GitError::NotPlain { path, what });
        }
        // A directory that cannot be read here cannot be read by git, either.
        for entry in fs::read_dir(&full).into_iter().flatten().flatten() {
            let path = dir.join(entry.file_name());
            let is_looked_at = entry.file_type().is_ok_and(|kind| kind.is_dir())
                && entry.file_name() != ".git"
                && (tracked.contains(&path) || !repository.is_path_ignored(&path).unwrap_or(false));
            if is_looked_at {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// Directories with files in the index, relative to the work tree.
fn tracked_directories(repository: &Repository) -> HashSet<PathBuf> {
    let mut found = HashSet::new();
    for entry in repository.index().iter().flat_map(Index::iter) {
        for dir in Path::new(OsStr::from_bytes(&entry.path)).ancestors().skip(1) {
            if !found.insert(dir.to_owned()) {
                break;
            }
        }
    }
    found
}
