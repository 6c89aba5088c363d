//! Describes a work tree: its commit, and the files that differ from it.

use std::path::{Path, PathBuf};

use git2::{Oid, Repository};
use lockstep_common::manifest::CodeVersion;

use super::error::GitError;
use super::remote::without_credentials;
use super::repository::{Kinds, discover, head_of};
use super::status::changes_in;

/// The state of a work tree.
#[derive(Debug)]
pub struct WorkTree {
    /// The commit, and whether the work tree differs from it.
    pub version: CodeVersion,
    /// Files that differ from the commit, untracked ones included, relative to the tree's root.
    pub changed: Vec<String>,
}

/// Describes the work tree that contains `path`; `None` if there is none.
pub fn describe(path: &Path) -> Result<Option<WorkTree>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let Some(mut repository) = discover(path)? else { return Ok(None) };
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

/// The root of the work tree that contains `path`; `None` if there is none.
pub fn root(path: &Path) -> Option<PathBuf> {
    discover(path).ok()??.workdir().map(Path::to_owned)
}

/// `path` relative to the root of its work tree; empty for the root, and if there is no work tree.
fn directory_in(repository: &Repository, path: &Path) -> String {
    let inside = || {
        let (root, path) = (repository.workdir()?.canonicalize().ok()?, path.canonicalize().ok()?);
        Some(path.strip_prefix(root).ok()?.to_string_lossy().into_owned())
    };
    inside().unwrap_or_default()
}

/// The tags of a commit, sorted by name.
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::testing::git;
    use super::*;

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
}
