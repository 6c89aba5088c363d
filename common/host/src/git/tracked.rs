//! Determines whether git tracks a path. A tracked file came with the repository.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::GitError;
use super::repository;

/// A tracked file at `path` or below it, or a tracked link on the way to `path`; `None` if git tracks nothing there.
///
/// # Errors
/// As [`super::describe`], for a repository that cannot be read; `Io`.
pub fn tracked(path: &Path) -> Result<Option<PathBuf>, GitError> {
    let io = |source: io::Error| GitError::Io { path: path.to_owned(), source };
    let path = std::path::absolute(path).map_err(io)?;
    for place in path.ancestors() {
        let Ok(found) = place.symlink_metadata() else { continue };
        if place != path && !found.is_symlink() {
            continue;
        }
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else { continue };
        if let Some(tracked) = tracked_at(parent, name)? {
            return Ok(Some(tracked));
        }
    }
    Ok(None)
}

/// A tracked file at or below `name` in the directory `parent`.
fn tracked_at(parent: &Path, name: &OsStr) -> Result<Option<PathBuf>, GitError> {
    let io = |source: io::Error| GitError::Io { path: parent.to_owned(), source };
    let Some(repository) = repository::discover(parent)? else { return Ok(None) };
    let Some(root) = repository.workdir() else { return Ok(None) };
    let (root, parent) = (root.canonicalize().map_err(io)?, parent.canonicalize().map_err(io)?);
    let Ok(inside) = parent.strip_prefix(&root) else { return Ok(None) };
    let index = repository.index().map_err(|source| GitError::Git { path: parent.clone(), source })?;
    let place = inside.join(name);
    let paths = index.iter().map(|entry| PathBuf::from(OsStr::from_bytes(&entry.path)));
    Ok(paths.into_iter().find(|path| path.starts_with(&place)).map(|path| root.join(path)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::testing::git;
    use super::tracked;

    #[test]
    fn what_came_with_a_repository_is_told_from_what_was_made_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(root.join("a/own")).unwrap();
        fs::create_dir(&outside).unwrap();
        assert_eq!(tracked(&root.join("a")).unwrap(), None, "no repository");
        git(&root, &["init", "-q"]);
        fs::write(root.join("a/f"), "1").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        git(&root, &["add", "."]);
        git(&root, &["commit", "-q", "-m", "x"]);
        fs::write(root.join("a/own/f"), "1").unwrap();
        let found = |path: &str| {
            let found = tracked(&root.join(path)).unwrap()?;
            Some(found.strip_prefix(root.canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!((found("a"), found("a/own"), found("none/x")), (Some("a/f".to_owned()), None, None));
        for path in ["link", "link/x/y"] {
            assert_eq!(found(path), Some("link".to_owned()), "{path}");
        }
        // A link that the user made is not tracked.
        symlink(&outside, root.join("mine")).unwrap();
        assert_eq!(found("mine/x"), None);
    }
}
