//! What git says of the work tree that holds a job; the tree as bytes, and back.

mod between;
mod command;
mod container;
mod fetch;
mod index;
mod missing;
mod objects;
mod open;
mod owner;
mod place;
mod remote;
mod restore;
mod revision;
mod snapshot;
mod sound;
mod source;
mod submodules;
mod tracked;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use git2::{ErrorCode, IndexEntry, IndexEntryExtendedFlag, IndexEntryFlag, Oid, Repository, Status, StatusOptions};
use lockstep_common::manifest::CodeVersion;

use missing::Kinds;

pub use between::{ChangedFile, Changes, changes};
pub use fetch::{Remotes, fetch, restore_or_fetch};
pub use owner::discover;
pub use remote::{PROTOCOLS, protocol};
pub use restore::{KEPT_BYTES, Needed, Sources, built_on, needed, restore};
pub use revision::{commit_at, files_at};
pub use snapshot::{Snapshot, snapshot};
pub use source::source;
pub use tracked::tracked;

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
    /// A `.git` that no repository is behind.
    #[error("`{}` is no git repository that can be read: {why}", path.display())]
    Broken {
        /// The `.git`.
        path: PathBuf,
        /// What is wrong, and what helps.
        why: String,
    },
    /// A partial clone whose remote does not give the rest.
    #[error(
        "`{}` is a partial clone, and its remote did not give {missing} objects that are not in it: {said}; `git fetch --refetch \
         --no-filter` there makes it a whole one",
        path.display()
    )]
    Partial {
        /// Its work tree.
        path: PathBuf,
        /// Objects that are not there.
        missing: usize,
        /// Why not.
        said: String,
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
    let Some(mut repository) = open::discover(path)? else { return Ok(None) };
    let id = head_of(&repository, path)?;
    repository.complete(id, Kinds::Trees)?;
    let head = repository.head().map_err(failed)?;
    let branch = head.is_branch().then(|| head.shorthand().ok().map(str::to_owned)).flatten();
    let remote = repository.find_remote("origin").ok().and_then(|remote| remote.url().ok().map(without_credentials));
    let (mut changed, mut unshown) = (Vec::new(), Vec::new());
    changes_in(&repository, Path::new(""), &mut changed, &mut unshown)?;
    unshown.retain(|path| !changed.contains(path));
    changed.append(&mut unshown);
    let tags = tags_of(&repository, id).map_err(failed)?;
    let (commit, dirty) = (id.to_string(), !changed.is_empty());
    let directory = directory_in(&repository, path);
    let version = CodeVersion { commit, branch, remote, dirty, tags, directory, tree: None, source: None };
    Ok(Some(WorkTree { version, changed }))
}

/// The commit of a work tree in which `path` lies.
///
/// # Errors
/// `NoCommit`, `Git`.
fn head_of(repository: &Repository, path: &Path) -> Result<Oid, GitError> {
    match repository.head().and_then(|head| head.peel_to_commit()) {
        Ok(commit) => Ok(commit.id()),
        Err(error) if error.code() == ErrorCode::UnbornBranch => Err(GitError::NoCommit { path: path.to_owned() }),
        Err(source) => Err(GitError::Git { path: path.to_owned(), source }),
    }
}

/// What changed in the work tree at `at`: what git shows, and a submodule by its path; and in `unshown` files that git was told not to
/// look at, also in submodules.
fn changes_in(
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

/// What git shows as changed, but for what is in submodules, which are looked at by themselves.
fn shown(repository: &Repository) -> Result<Vec<(PathBuf, Status)>, git2::Error> {
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

/// Changed files that git was told not to look at (`update-index --assume-unchanged`, `--skip-worktree`). What a sparse checkout
/// leaves out is no change.
fn unwatched(repository: &Repository) -> Result<Vec<PathBuf>, git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(Vec::new()) };
    let is_skipped = |entry: &IndexEntry| entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0;
    let is_sparse = is_sparse(repository);
    let is_unwatched = |entry: &IndexEntry| entry.flags & IndexEntryFlag::VALID.bits() != 0 || is_skipped(entry);
    let is_changed = |entry: &IndexEntry| {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        match snapshot::on_disk(root, path) {
            Ok(Some(found)) => found != (entry.mode, entry.id),
            Ok(None) => !(is_sparse && is_skipped(entry)),
            // It cannot be read: that is said where it is to be kept.
            Err(_) => true,
        }
    };
    let is_file = |entry: &IndexEntry| entry.mode != snapshot::SUBMODULE;
    let index = repository.index()?;
    let entries: Vec<IndexEntry> =
        index.iter().filter(|entry| is_file(entry) && is_unwatched(entry)).filter(is_changed).collect();
    Ok(entries.into_iter().map(|entry| PathBuf::from(OsStr::from_bytes(&entry.path))).collect())
}

/// Files that a sparse checkout leaves out: that they are not there is no change.
fn left_out(repository: &Repository) -> Result<HashSet<OsString>, git2::Error> {
    let Some(root) = repository.workdir().filter(|_| is_sparse(repository)) else { return Ok(HashSet::new()) };
    let is_left_out = |entry: &IndexEntry| {
        entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0
            && root.join(OsStr::from_bytes(&entry.path)).symlink_metadata().is_err()
    };
    let entries = repository.index()?.iter().filter(is_left_out).collect::<Vec<_>>();
    Ok(entries.into_iter().map(|entry| OsString::from_vec(entry.path)).collect())
}

/// Whether files are left out of the work tree. Otherwise a file that git was told to skip and that is not there was deleted.
fn is_sparse(repository: &Repository) -> bool {
    repository.config().and_then(|config| config.get_bool("core.sparseCheckout")).unwrap_or(false)
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
