//! What git says of the work tree that holds a job; the tree as bytes, and back.

mod container;
mod fetch;
mod objects;
mod open;
mod restore;
mod revision;
mod snapshot;
mod source;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use git2::{
    DiffFormat, ErrorCode, IndexEntry, IndexEntryExtendedFlag, IndexEntryFlag, ObjectType, Oid, Patch, Repository,
    StatusOptions, SubmoduleIgnore,
};
use lockstep_common::manifest::CodeVersion;
use serde::Serialize;

pub use fetch::{Remotes, fetch, restore_or_fetch};
pub use restore::{Needed, Sources, built_on, needed, restore};
pub use revision::{commit_at, files_at};
pub use snapshot::{Snapshot, snapshot};
pub use source::source;

/// A work tree.
#[derive(Debug)]
pub struct WorkTree {
    /// Its commit, and whether it differs from it.
    pub version: CodeVersion,
    /// Files that differ from the commit, untracked ones included, relative to the tree's root.
    pub changed: Vec<String>,
}

/// A repository that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git2 refused.
    #[error("cannot read the git repository of `{}`", path.display())]
    Git {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// Nothing was ever committed.
    #[error("the git repository of `{}` has no commit yet", path.display())]
    NoCommit {
        /// The path asked for.
        path: PathBuf,
    },
    /// A repository without a work tree.
    #[error("the git repository `{}` has no work tree", path.display())]
    Bare {
        /// The repository.
        path: PathBuf,
    },
    /// Neither this commit nor the next one yet.
    #[error("`{}` is in the middle of {doing}: finish or abort it first", path.display())]
    Unfinished {
        /// The work tree, or the file in conflict.
        path: PathBuf,
        /// A merge, a rebase, ..
        doing: &'static str,
    },
    /// Changed files that are larger than what is kept.
    #[error(
        "files that differ from the commit have {total} bytes together, and at most {limit} are kept with a run; the \
         largest are {}",
        .largest.iter().map(|(path, bytes)| format!("`{}` ({bytes} bytes)", path.display())).collect::<Vec<_>>().join(", ")
    )]
    TooLarge {
        /// Bytes of all.
        total: u64,
        /// Bytes allowed.
        limit: u64,
        /// The largest files with their bytes.
        largest: Vec<(PathBuf, u64)>,
    },
    /// What git cannot keep, or what would lead elsewhere on another machine.
    #[error("`{}` cannot be kept with a run: {what}", path.display())]
    NotPlain {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A file that is being written.
    #[error("`{}` changes while it is read: wait until nobody writes to it", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory that cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A work tree that git was told to look for elsewhere.
    #[error(
        "`{}` does not lie in the work tree of its repository, which is `{}` (`core.worktree`): submit from there, or unset it",
        path.display(), work_tree.display()
    )]
    Elsewhere {
        /// The path.
        path: PathBuf,
        /// The work tree.
        work_tree: PathBuf,
    },
    /// A repository in a form that cannot be read.
    #[error("cannot read the repository of `{}`: {helps}", path.display())]
    Unsupported {
        /// A path in it.
        path: PathBuf,
        /// What helps.
        helps: &'static str,
        /// In libgit2's words.
        #[source]
        source: git2::Error,
    },
    /// Names that cannot be written down.
    #[error("cannot write down the state of a work tree: {reason}")]
    Header {
        /// Why.
        reason: String,
    },
    /// Bytes that are no snapshot of a work tree.
    #[error("not a work tree's state: {reason}")]
    NotASnapshot {
        /// Why.
        reason: String,
    },
    /// A directory where a tree would go.
    #[error("`{}` is not empty", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// A remote that does not give the commit.
    #[error("cannot fetch commit `{commit}` from `{url}`: {said}")]
    Fetch {
        /// The remote.
        url: String,
        /// The commit.
        commit: String,
        /// What git said.
        said: String,
    },
    /// Nobody has the commit.
    #[error(
        "commit `{commit}` of {of} is in none of the repositories {}",
        .looked.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
    )]
    NoSource {
        /// The commit.
        commit: String,
        /// The tree or a submodule.
        of: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
}

/// Describes the work tree that `path` lies in; `None` if it lies in none.
pub fn describe(path: &Path) -> Result<Option<WorkTree>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let Some(repository) = open::discover(path)? else { return Ok(None) };
    let head = match repository.head() {
        Ok(head) => head,
        Err(error) if error.code() == ErrorCode::UnbornBranch => {
            return Err(GitError::NoCommit { path: path.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    };
    let id = head.peel_to_commit().map_err(failed)?.id();
    let branch = head.is_branch().then(|| head.shorthand().ok().map(str::to_owned)).flatten();
    let remote = repository.find_remote("origin").ok().and_then(|remote| remote.url().ok().map(without_credentials));

    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true).include_ignored(false);
    let statuses = repository.statuses(Some(&mut options)).map_err(failed)?;
    let left_out = left_out(&repository).map_err(failed)?;
    let changed = statuses.iter().filter(|entry| !left_out.contains(OsStr::from_bytes(entry.path_bytes())));
    let mut changed: Vec<String> =
        changed.map(|entry| String::from_utf8_lossy(entry.path_bytes()).into_owned()).collect();
    let mut more = Vec::new();
    unshown(&repository, Path::new(""), &mut more).map_err(failed)?;
    more.retain(|path| !changed.contains(path));
    changed.append(&mut more);
    let tags = tags_of(&repository, id).map_err(failed)?;
    let (commit, dirty) = (id.to_string(), !changed.is_empty());
    let directory = directory_in(&repository, path);
    let version = CodeVersion { commit, branch, remote, dirty, tags, directory, tree: None, source: None };
    Ok(Some(WorkTree { version, changed }))
}

/// What changed in a work tree at `at` and git does not show: files that it was told not to look at, also in submodules, and submodules
/// with changes, whatever `ignore` says of them.
fn unshown(repository: &Repository, at: &Path, changed: &mut Vec<String>) -> Result<(), git2::Error> {
    let text = |path: &Path| at.join(path).to_string_lossy().into_owned();
    changed.extend(unwatched(repository)?.iter().map(|path| text(path)));
    for submodule in repository.submodules()? {
        let Ok(inner) = submodule.open() else { continue };
        let name = submodule.name().unwrap_or_default();
        let status = repository.submodule_status(name, SubmoduleIgnore::None)?;
        if status.is_wd_modified() || status.is_wd_wd_modified() || status.is_wd_untracked() {
            changed.push(text(submodule.path()));
        }
        unshown(&inner, &at.join(submodule.path()), changed)?;
    }
    Ok(())
}

/// Changed files that git was told not to look at (`update-index --assume-unchanged`, `--skip-worktree`). What a sparse checkout
/// leaves out is no change.
fn unwatched(repository: &Repository) -> Result<Vec<PathBuf>, git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let is_unwatched = |entry: &IndexEntry| {
        entry.flags & IndexEntryFlag::VALID.bits() != 0
            || entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0
    };
    let is_changed = |entry: &IndexEntry| {
        let path = root.join(OsStr::from_bytes(&entry.path));
        path.is_file() && Oid::hash_file(ObjectType::Blob, &path).is_ok_and(|found| found != entry.id)
    };
    let entries: Vec<IndexEntry> = repository.index()?.iter().filter(is_unwatched).filter(is_changed).collect();
    Ok(entries.into_iter().map(|entry| PathBuf::from(OsStr::from_bytes(&entry.path))).collect())
}

/// Files that a sparse checkout leaves out: that they are not there is no change.
fn left_out(repository: &Repository) -> Result<HashSet<OsString>, git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(HashSet::new()) };
    let is_left_out = |entry: &IndexEntry| {
        entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0
            && root.join(OsStr::from_bytes(&entry.path)).symlink_metadata().is_err()
    };
    let entries = repository.index()?.iter().filter(is_left_out).collect::<Vec<_>>();
    Ok(entries.into_iter().map(|entry| OsString::from_vec(entry.path)).collect())
}

/// The root of the work tree that `path` lies in, if it lies in one.
pub fn root(path: &Path) -> Option<PathBuf> {
    open::discover(path).ok()??.workdir().map(Path::to_owned)
}

/// Where `path` lies in its work tree; empty at its root, and where there is none.
fn directory_in(repository: &Repository, path: &Path) -> String {
    let inside = || {
        let (root, path) = (repository.workdir()?.canonicalize().ok()?, path.canonicalize().ok()?);
        Some(path.strip_prefix(root).ok()?.to_string_lossy().into_owned())
    };
    inside().unwrap_or_default()
}

/// The tags that name a commit, by name.
fn tags_of(repository: &Repository, commit: Oid) -> Result<Vec<String>, git2::Error> {
    let mut tags = Vec::new();
    for reference in repository.references_glob("refs/tags/*")? {
        let reference = reference?;
        if reference.peel_to_commit().is_ok_and(|of| of.id() == commit)
            && let Ok(name) = reference.shorthand()
        {
            tags.push(name.to_owned());
        }
    }
    tags.sort();
    Ok(tags)
}

/// What lies between two commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// File by file.
    pub files: Vec<ChangedFile>,
    /// All of it, as `git diff` prints it.
    pub patch: String,
}

/// A file that differs between two commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedFile {
    /// Relative to the tree's root.
    pub path: String,
    /// Lines that only the second has.
    pub added: usize,
    /// Lines that only the first has.
    pub removed: usize,
}

/// What changed from commit `a` to commit `b`, if the repository that `path` lies in has both.
pub fn changes(path: &Path, a: &str, b: &str) -> Result<Option<Changes>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let Ok(repository) = Repository::discover(path) else { return Ok(None) };
    let tree = |commit: &str| {
        let commit = repository.find_commit(Oid::from_str(commit).ok()?).ok()?;
        commit.tree().ok()
    };
    let (Some(tree_a), Some(tree_b)) = (tree(a), tree(b)) else { return Ok(None) };
    let diff = repository.diff_tree_to_tree(Some(&tree_a), Some(&tree_b), None).map_err(failed)?;
    let mut files = Vec::new();
    for (index, delta) in diff.deltas().enumerate() {
        let path = delta.new_file().path_bytes().or(delta.old_file().path_bytes()).unwrap_or_default();
        let lines = Patch::from_diff(&diff, index).map_err(failed)?.map(|patch| patch.line_stats());
        let (_, added, removed) = lines.transpose().map_err(failed)?.unwrap_or_default();
        files.push(ChangedFile { path: String::from_utf8_lossy(path).into_owned(), added, removed });
    }
    let mut patch = String::new();
    diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), '+' | '-' | ' ') {
            patch.push(line.origin());
        }
        patch.push_str(&String::from_utf8_lossy(line.content()));
        true
    })
    .map_err(failed)?;
    Ok(Some(Changes { files, patch }))
}

/// `https://user:token@host/x?token=..` without what stands before the `@`, and without the query; `user:password@host:x`, as ssh takes
/// it, without the password.
fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or(url);
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or(rest);
            let bare = match host.rsplit_once('@') {
                // Who logs in is no secret there, and is needed.
                Some((user, host)) if scheme.contains("ssh") => {
                    format!("{}@{host}", user.split(':').next().unwrap_or(user))
                }
                Some((_, host)) => host.to_owned(),
                None => host.to_owned(),
            };
            format!("{scheme}://{bare}{}", &rest[host.len()..])
        }
        None => match url.split_once('@') {
            Some((user, rest)) if !user.contains('/') => {
                format!("{}@{rest}", user.split(':').next().unwrap_or(user))
            }
            _ => url.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    pub(super) fn git(dir: &Path, arguments: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let status = Command::new("git").current_dir(dir).args(identity).args(arguments).output().unwrap();
        assert!(status.status.success(), "{status:?}");
    }

    #[test]
    fn a_tree_is_described_as_git_itself_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(describe(dir.path()).unwrap().is_none());
        git(dir.path(), &["init", "-q", "-b", "main"]);
        assert!(matches!(describe(dir.path()), Err(GitError::NoCommit { .. })));
        std::fs::write(dir.path().join("a"), "1").unwrap();
        git(dir.path(), &["add", "."]);
        git(dir.path(), &["commit", "-q", "-m", "x"]);
        git(dir.path(), &["remote", "add", "origin", "https://me:secret@example.org/r.git"]);
        let clean = describe(dir.path()).unwrap().unwrap();
        let head = Command::new("git").current_dir(dir.path()).args(["rev-parse", "HEAD"]).output().unwrap();
        assert_eq!(clean.version.commit, String::from_utf8(head.stdout).unwrap().trim());
        assert_eq!((clean.version.dirty, clean.version.branch.as_deref()), (false, Some("main")));
        assert_eq!(clean.version.remote.as_deref(), Some("https://example.org/r.git"));
        std::fs::write(dir.path().join("a"), "2").unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/new"), "3").unwrap();
        let dirty = describe(dir.path()).unwrap().unwrap();
        assert_eq!((dirty.version.dirty, dirty.changed), (true, vec!["a".to_owned(), "d/new".to_owned()]));
        std::fs::remove_dir_all(dir.path().join("d")).unwrap();
        for flag in ["--assume-unchanged", "--skip-worktree"] {
            git(dir.path(), &["checkout", "-q", "a"]);
            git(dir.path(), &["update-index", flag, "a"]);
            assert!(!describe(dir.path()).unwrap().unwrap().version.dirty, "{flag}");
            std::fs::write(dir.path().join("a"), "2").unwrap();
            assert_eq!(describe(dir.path()).unwrap().unwrap().changed, ["a"], "{flag}");
            git(dir.path(), &["update-index", &flag.replacen("--", "--no-", 1), "a"]);
        }
    }

    #[test]
    fn what_lies_between_two_commits_is_told_if_both_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let commit = |message: &str| {
            git(dir.path(), &["add", "-A"]);
            git(dir.path(), &["commit", "-m", message]);
            describe(dir.path()).unwrap().unwrap().version.commit
        };
        git(dir.path(), &["init"]);
        std::fs::write(dir.path().join("train.rs"), "one\ntwo\n").unwrap();
        std::fs::write(dir.path().join("old"), "x\n").unwrap();
        let a = commit("a");
        std::fs::write(dir.path().join("train.rs"), "one\nthree\nfour\n").unwrap();
        std::fs::remove_file(dir.path().join("old")).unwrap();
        let b = commit("b");
        let found = changes(dir.path(), &a, &b).unwrap().unwrap();
        let files: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.added, file.removed)).collect();
        assert_eq!(files, [("old", 0, 1), ("train.rs", 2, 1)]);
        assert!(found.patch.contains("-two\n+three\n+four\n"), "{}", found.patch);
        assert_eq!(changes(dir.path(), &a, &"0".repeat(40)).unwrap(), None);
        assert_eq!(changes(Path::new("/proc"), &a, &b).unwrap(), None);
    }

    #[test]
    fn no_password_of_a_remote_is_kept() {
        for (url, kept) in [
            ("https://me:secret@example.org/r.git", "https://example.org/r.git"),
            ("https://example.org/r.git?access_token=secret", "https://example.org/r.git"),
            ("https://example.org/r.git#secret", "https://example.org/r.git"),
            ("ssh://git:secret@example.org:22/r.git", "ssh://git@example.org:22/r.git"),
            ("git:secret@example.org:r.git", "git@example.org:r.git"),
            ("git@example.org:r.git", "git@example.org:r.git"),
            ("/srv/a@b/r.git", "/srv/a@b/r.git"),
            ("../r.git", "../r.git"),
        ] {
            assert_eq!(without_credentials(url), kept);
        }
    }
}
