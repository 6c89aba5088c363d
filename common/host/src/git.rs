//! What git says of the work tree that holds a job.

use std::path::{Path, PathBuf};

use git2::{DiffFormat, ErrorCode, Oid, Patch, Repository, StatusOptions};
use lockstep_common::manifest::CodeVersion;
use serde::Serialize;

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
}

/// Describes the work tree that `path` lies in; `None` if it lies in none.
pub fn describe(path: &Path) -> Result<Option<WorkTree>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let repository = match Repository::discover(path) {
        Ok(repository) => repository,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let head = match repository.head() {
        Ok(head) => head,
        Err(error) if error.code() == ErrorCode::UnbornBranch => {
            return Err(GitError::NoCommit { path: path.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    };
    let commit = head.peel_to_commit().map_err(failed)?.id().to_string();
    let branch = head.is_branch().then(|| head.shorthand().ok().map(str::to_owned)).flatten();
    let remote = repository.find_remote("origin").ok().and_then(|remote| remote.url().ok().map(without_credentials));

    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true).include_ignored(false);
    let statuses = repository.statuses(Some(&mut options)).map_err(failed)?;
    let changed: Vec<String> =
        statuses.iter().map(|entry| String::from_utf8_lossy(entry.path_bytes()).into_owned()).collect();
    let version = CodeVersion { commit, branch, remote, dirty: !changed.is_empty() };
    Ok(Some(WorkTree { version, changed }))
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

/// `https://user:token@host/x` without what stands before the `@`.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or(rest);
            let bare = host.rsplit('@').next().unwrap_or(host);
            format!("{scheme}://{bare}{}", &rest[host.len()..])
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn git(dir: &Path, arguments: &[&str]) {
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
}
