//! Files as they were in another commit.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Repository, TreeWalkMode, TreeWalkResult};

use super::{GitError, directory_in};

/// Writes what `path`, a file or a directory, held in `revision` into the directory `into`: for each file its path below
/// `path` (empty for `path` itself) and where its contents lie now, sorted. `None` if the commit has nothing there.
///
/// # Errors
/// `Git` also for a revision that is none; `NotPlain` for links and submodules; `Io`.
pub fn files_at(path: &Path, revision: &str, into: &Path) -> Result<Option<Vec<(String, PathBuf)>>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let repository = Repository::discover(parent).map_err(failed)?;
    let commit = repository.revparse_single(revision).and_then(|object| object.peel_to_commit()).map_err(failed)?;
    let name = path.file_name().unwrap_or_default();
    let below = Path::new(&directory_in(&repository, parent)).join(name);
    let entry = match commit.tree().and_then(|tree| tree.get_path(&below)) {
        Ok(entry) => entry,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut found = vec![(String::new(), entry.id(), entry.kind(), entry.filemode())];
    if entry.kind() == Some(ObjectType::Tree) {
        found.clear();
        let tree = repository.find_tree(entry.id()).map_err(failed)?;
        let walked = tree.walk(TreeWalkMode::PreOrder, |directory, entry| {
            if entry.kind() != Some(ObjectType::Tree) {
                let name = format!("{directory}{}", String::from_utf8_lossy(entry.name_bytes()));
                found.push((name, entry.id(), entry.kind(), entry.filemode()));
            }
            TreeWalkResult::Ok
        });
        walked.map_err(failed)?;
    }
    let mut files = Vec::new();
    for (name, id, kind, mode) in found {
        let full = if name.is_empty() { path.to_owned() } else { path.join(&name) };
        if kind != Some(ObjectType::Blob) || mode == LINK {
            return Err(GitError::NotPlain { path: full, what: format!("it is no file in `{revision}`") });
        }
        let blob = repository.find_blob(id).map_err(failed)?;
        let at = into.join(id.to_string());
        fs::write(&at, blob.content()).map_err(|source| GitError::Io { path: at.clone(), source })?;
        files.push((name, at));
    }
    files.sort();
    Ok(Some(files))
}

const LINK: i32 = 0o120_000;

#[cfg(test)]
mod tests {
    use super::super::tests::git;
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
        let texts = |path: &str, revision: &str| -> Vec<(String, String)> {
            let files = files_at(&root.join(path), revision, &into).unwrap().unwrap();
            files.into_iter().map(|(name, at)| (name, fs::read_to_string(at).unwrap())).collect()
        };
        let text = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(texts("data", "HEAD~1"), [text("a", "old"), text("more/b", "old")]);
        assert_eq!(texts("data/a", "HEAD"), [text("", "new")]);
        assert_eq!(files_at(&root.join("none"), "HEAD", &into).unwrap(), None);
        assert!(matches!(files_at(&root.join("data"), "v9", &into), Err(GitError::Git { .. })));
        std::os::unix::fs::symlink("a", root.join("data/link")).unwrap();
        git(dir.path(), &["add", "."]);
        git(dir.path(), &["commit", "-q", "-m", "link"]);
        assert!(
            matches!(files_at(&root.join("data"), "HEAD", &into), Err(GitError::NotPlain { path, .. }) if path.ends_with("data/link"))
        );
    }
}
