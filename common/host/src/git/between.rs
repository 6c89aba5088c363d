//! The changes between two commits of a repository on this machine.

use std::path::Path;

use git2::{Diff, DiffFormat, FileMode, Oid, Patch, Repository};
use serde::Serialize;

use super::error::GitError;
use super::repository::{self, Kinds};

/// The changes between two commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The changed files.
    pub files: Vec<ChangedFile>,
    /// All changes in the format of `git diff`.
    pub patch: String,
}

/// A file that differs between two commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedFile {
    /// Path relative to the root of the work tree.
    pub path: String,
    /// Number of lines that only the second commit has.
    pub added: usize,
    /// Number of lines that only the first commit has.
    pub removed: usize,
}

/// The changes from commit `a` to commit `b` in the repository that contains `path`; `None` if it lacks one of them.
pub fn changes(path: &Path, a: &str, b: &str) -> Result<Option<Changes>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let Ok(mut repository) = repository::history(path) else { return Ok(None) };
    let ids = [a, b].map(|commit| Oid::from_str(commit).ok().filter(|id| repository.find_commit(*id).is_ok()));
    let [Some(a), Some(b)] = ids else { return Ok(None) };
    for commit in [a, b] {
        repository.complete(commit, Kinds::Trees)?;
    }
    let wanted = differing(&repository, a, b).map_err(failed)?;
    repository.complete_objects(&wanted)?;
    let diff = diff(&repository, a, b).map_err(failed)?;
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

fn diff(repository: &Repository, a: Oid, b: Oid) -> Result<Diff<'_>, git2::Error> {
    let tree = |commit| repository.find_commit(commit)?.tree();
    repository.diff_tree_to_tree(Some(&tree(a)?), Some(&tree(b)?), None)
}

/// The blobs that a patch between the two commits needs.
fn differing(repository: &Repository, a: Oid, b: Oid) -> Result<Vec<Oid>, git2::Error> {
    let diff = diff(repository, a, b)?;
    let files =
        diff.deltas().flat_map(|delta| [delta.old_file(), delta.new_file()].map(|file| (file.id(), file.mode())));
    Ok(files.filter(|(id, mode)| !id.is_zero() && *mode != FileMode::Commit).map(|(id, _)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::super::describe;
    use super::super::testing::git;
    use super::*;

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
