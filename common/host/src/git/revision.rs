//! Reads files from another commit.

use std::fs;
use std::path::{Component, Path, PathBuf};

use git2::{ErrorCode, ObjectType, Oid, Repository, Tree, TreeEntry, TreeWalkMode, TreeWalkResult};

use super::error::GitError;
use super::repository::{self, Kinds};

/// The commit, in the repository that contains `path`, that belongs to `revision` of the work tree that contains `from`. If `path` is in
/// a submodule, this is the commit that `revision` records for the submodule. If `path` is in another work tree, `revision` is resolved
/// there.
///
/// # Errors
/// `Git`, also for an unknown revision; `NotPlain` if `revision` has no submodule at the path.
pub fn commit_at(path: &Path, from: &Path, revision: &str) -> Result<String, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let around = roots(path);
    let own = roots(&from.join("_")).last().and_then(|root| root.canonicalize().ok());
    let begins = around.iter().position(|root| own.is_some() && root.canonicalize().ok() == own);
    let mut chain = around[begins.unwrap_or(around.len().saturating_sub(1))..].iter();
    let first = chain.next().map_or_else(|| path.parent().unwrap_or(path), PathBuf::as_path);
    let (mut root, mut repository) = (first, repository::history(first)?);
    let mut commit =
        repository.revparse_single(revision).and_then(|object| object.peel_to_commit()).map_err(failed)?.id();
    repository.complete(commit, Kinds::Trees)?;
    for inner in chain {
        let below = inner.strip_prefix(root).unwrap_or(inner);
        let entry = entry_at(&tree_of(&repository, commit).map_err(failed)?, below, root)?;
        let entry = entry.filter(|entry| entry.kind() == Some(ObjectType::Commit));
        let what = || format!("it is not a submodule in `{revision}` of `{}`", root.display());
        commit = entry.ok_or_else(|| GitError::NotPlain { path: inner.clone(), what: what() })?.id();
        (root, repository) = (inner, repository::history_at(inner)?);
    }
    Ok(commit.to_string())
}

/// Writes the file or directory `path`, as it is in `commit` of its repository, into the directory `into`. Returns for each file its path
/// relative to `path` (empty for `path` itself) and the path of the written contents, sorted. `None` if the commit does not contain
/// `path`. Links in the present work tree do not matter.
///
/// # Errors
/// `Git`, also for an unknown commit; `NotPlain` for links and submodules; `Io`.
pub fn files_at(path: &Path, commit: &str, into: &Path) -> Result<Option<Vec<(String, PathBuf)>>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let around = roots(path);
    let root = around.last().map_or(parent, PathBuf::as_path);
    let mut repository = repository::history(root)?;
    let id = Oid::from_str(commit).map_err(failed)?;
    repository.find_commit(id).map_err(failed)?;
    repository.complete(id, Kinds::Trees)?;
    let path = spelled(path);
    let Some(found) = entries_at(&repository, id, path.strip_prefix(root).unwrap_or(&path), root)? else {
        return Ok(None);
    };
    repository.complete_objects(&found.iter().map(|(_, id, ..)| *id).collect::<Vec<_>>())?;
    let mut files = Vec::new();
    for (name, id, kind, mode) in found {
        let full = if name.is_empty() { path.clone() } else { path.join(&name) };
        if kind != Some(ObjectType::Blob) || mode == LINK {
            let what = format!("it is not a regular file in commit `{commit}`");
            return Err(GitError::NotPlain { path: full, what });
        }
        let blob = repository.find_blob(id).map_err(failed)?;
        let at = into.join(id.to_string());
        fs::write(&at, blob.content()).map_err(|source| GitError::Io { path: at.clone(), source })?;
        files.push((name, at));
    }
    files.sort();
    Ok(Some(files))
}

/// A relative path with the id, kind and mode of its object.
type Found = (String, Oid, Option<ObjectType>, i32);

/// The entry of `commit` at `below`, a path relative to `root`, or all files below it if it is a directory.
fn entries_at(repository: &Repository, commit: Oid, below: &Path, root: &Path) -> Result<Option<Vec<Found>>, GitError> {
    let failed = |source| GitError::Git { path: root.join(below), source };
    let tree = tree_of(repository, commit).map_err(failed)?;
    let Some(entry) = entry_at(&tree, below, root)? else { return Ok(None) };
    if entry.kind() != Some(ObjectType::Tree) {
        return Ok(Some(vec![(String::new(), entry.id(), entry.kind(), entry.filemode())]));
    }
    let mut found = Vec::new();
    let tree = repository.find_tree(entry.id()).map_err(failed)?;
    let walked = tree.walk(TreeWalkMode::PreOrder, |directory, entry| {
        if entry.kind() != Some(ObjectType::Tree) {
            let name = format!("{directory}{}", String::from_utf8_lossy(entry.name_bytes()));
            found.push((name, entry.id(), entry.kind(), entry.filemode()));
        }
        TreeWalkResult::Ok
    });
    walked.map_err(failed)?;
    Ok(Some(found))
}

fn tree_of(repository: &Repository, commit: Oid) -> Result<Tree<'_>, git2::Error> {
    repository.find_commit(commit)?.tree()
}

/// The entry of `tree` at `below`, a path relative to the work tree's `root`.
fn entry_at(tree: &Tree<'_>, below: &Path, root: &Path) -> Result<Option<TreeEntry<'static>>, GitError> {
    for above in below.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        if tree.get_path(above).is_ok_and(|entry| entry.filemode() == LINK) {
            let what = "it is a symbolic link in that revision, and links in revisions are not followed".to_owned();
            return Err(GitError::NotPlain { path: root.join(above), what });
        }
    }
    match tree.get_path(below) {
        Ok(entry) => Ok(Some(entry)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(source) => Err(GitError::Git { path: root.join(below), source }),
    }
}

/// The roots of all work trees that contain `path`, the outermost first. Links within them are not followed.
fn roots(path: &Path) -> Vec<PathBuf> {
    let path = spelled(path);
    let mut roots: Vec<PathBuf> = Vec::new();
    for directory in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
        if !roots.is_empty() && directory.is_symlink() {
            break;
        }
        // A dangling link counts, too: such a repository is broken, not absent.
        if directory.join(".git").symlink_metadata().is_ok() {
            roots.push(directory.to_owned());
        }
    }
    roots
}

/// `path` as an absolute path without `.` and `..`. Links are followed only if `path` is not already in a work tree.
fn spelled(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    let is_inside = plain.ancestors().skip(1).any(|directory| directory.join(".git").exists());
    let parent = plain.parent().and_then(|parent| parent.canonicalize().ok()).filter(|_| !is_inside);
    match (parent, plain.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => plain,
    }
}

const LINK: i32 = 0o120_000;

#[cfg(test)]
mod tests {
    use super::super::testing::git;
    use super::*;

    #[test]
    fn files_and_directories_come_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (root, into) = (dir.path().join("tree/sub"), dir.path().join("into"));
        fs::create_dir_all(root.join("data/more")).unwrap();
        fs::create_dir(&into).unwrap();
        git(dir.path(), &["init", "-q"]);
        for text in ["old", "new"] {
            fs::write(root.join("data/more/b"), text).unwrap();
            fs::write(root.join("data/a"), text).unwrap();
            git(dir.path(), &["add", "."]);
            git(dir.path(), &["commit", "-q", "-m", text]);
        }
        let found = |path: &Path, revision: &str| files_at(path, &commit_at(path, dir.path(), revision)?, &into);
        let texts = |path: &str, revision: &str| -> Vec<(String, String)> {
            let files = found(&root.join(path), revision).unwrap().unwrap();
            files.into_iter().map(|(name, at)| (name, fs::read_to_string(at).unwrap())).collect()
        };
        let text = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(texts("data", "HEAD~1"), [text("a", "old"), text("more/b", "old")]);
        assert_eq!(texts("data/a", "HEAD"), [text("", "new")]);
        assert_eq!(found(&root.join("none"), "HEAD").unwrap(), None);
        assert!(matches!(found(&root.join("data"), "v9"), Err(GitError::Git { .. })));
        std::os::unix::fs::symlink("a", root.join("data/link")).unwrap();
        git(dir.path(), &["add", "."]);
        git(dir.path(), &["commit", "-q", "-m", "link"]);
        assert!(
            matches!(found(&root.join("data"), "HEAD"), Err(GitError::NotPlain { path, .. }) if path.ends_with("data/link"))
        );
    }

    #[test]
    fn neither_todays_links_nor_a_submodules_own_history_change_what_a_revision_has() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, inner, into) = (dir.path().join("tree"), dir.path().join("inner"), dir.path().join("into"));
        for repository in [&tree, &inner] {
            fs::create_dir_all(repository.join("data")).unwrap();
            git(repository, &["init", "-q"]);
            fs::write(repository.join("data/a"), "one").unwrap();
            git(repository, &["add", "."]);
            git(repository, &["commit", "-q", "-m", "one"]);
        }
        fs::create_dir(&into).unwrap();
        let url = inner.to_str().unwrap();
        git(&tree, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "module"]);
        git(&tree, &["commit", "-q", "-m", "a submodule"]);
        git(&tree, &["tag", "v1"]);
        // Later the directory becomes a link to another one, and the submodule gets a tag of the same name.
        fs::create_dir(tree.join("other")).unwrap();
        fs::write(tree.join("other/a"), "two").unwrap();
        fs::remove_dir_all(tree.join("data")).unwrap();
        std::os::unix::fs::symlink("other", tree.join("data")).unwrap();
        let module = tree.join("module");
        fs::write(module.join("data/a"), "two").unwrap();
        for repository in [&module, &tree] {
            git(repository, &["add", "-A"]);
            git(repository, &["commit", "-q", "-m", "two"]);
        }
        git(&module, &["tag", "v1"]);

        let found = |path: &str, from: &Path, revision: &str| {
            let path = tree.join(path);
            let found = files_at(&path, &commit_at(&path, from, revision)?, &into)?;
            Ok::<_, GitError>(found.map(|files| fs::read_to_string(&files[0].1).unwrap()))
        };
        let text = |path: &str, from: &Path, revision: &str| found(path, from, revision).unwrap().unwrap();
        assert_eq!(text("data/a", &tree, "v1"), "one");
        assert_eq!(text("module/data/a", &tree, "v1"), "one");
        assert_eq!(text("module/data/a", &tree, "HEAD"), "two");
        // A revision of a job in the submodule, or of a job outside of both, is a revision of the submodule.
        assert_eq!(text("module/data/a", &module, "v1"), "two");
        assert_eq!(text("module/data/a", dir.path(), "v1"), "two");
        for (path, revision, words) in [
            ("data/a", "HEAD", "data` with the run: it is a symbolic link in that revision"),
            ("module/data/a", "v1~1", "module` with the run: it is not a submodule in `v1~1`"),
        ] {
            let refused = found(path, &tree, revision).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
