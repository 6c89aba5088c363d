//! The target directory of a restore. It remembers which directories existed before, so that a failed restore removes only its own
//! files and directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::error::GitError;

/// An empty directory in which no other process restores a work tree.
#[derive(Debug)]
pub(in crate::git) struct Place {
    /// Canonical path, so that exactly the written files are removed.
    path: PathBuf,
    /// The outermost directory that was created for it; `None` if it existed.
    made: Option<PathBuf>,
}

impl Place {
    /// Claims the directory `target`, and creates it if it does not exist. Links are followed.
    ///
    /// # Errors
    /// `Occupied` if it is not an empty directory, also if another restore has claimed it; `Io`.
    pub(in crate::git) fn claim(target: &Path) -> Result<Self, GitError> {
        let io = |source| GitError::Io { path: target.to_owned(), source };
        let made = match target.canonicalize() {
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = missing(&std::path::absolute(target).map_err(io)?);
                fs::create_dir_all(target).map_err(io)?;
                made
            }
            Err(error) => return Err(io(error)),
        };
        let place = Self { path: target.canonicalize().map_err(io)?, made };
        let occupied = || GitError::Occupied { path: target.to_owned() };
        if !place.path.is_dir() || fs::read_dir(&place.path).map_err(io)?.next().is_some() {
            return Err(occupied());
        }
        // If several processes found the directory empty, only one of them creates `.git`.
        match fs::create_dir(place.path.join(".git")) {
            Ok(()) => Ok(place),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(occupied()),
            Err(error) => {
                place.unmake();
                Err(io(error))
            }
        }
    }

    pub(in crate::git) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes its contents, and the directories that were created for it.
    pub(in crate::git) fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // For a link this is the type of the link itself.
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        self.unmake();
        Ok(())
    }

    /// Removes the directories that were created for it. Directories that are not empty stay.
    fn unmake(&self) {
        let Some(made) = &self.made else { return };
        let outermost = made.canonicalize();
        for dir in self.path.ancestors() {
            if fs::remove_dir(dir).is_err() || outermost.as_ref().is_ok_and(|outermost| outermost == dir) {
                return;
            }
        }
    }
}

/// The outermost directory of the path `target` that does not exist.
fn missing(target: &Path) -> Option<PathBuf> {
    target.ancestors().take_while(|dir| !dir.exists()).last().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_was_there_stays_and_what_was_made_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (own, link) = (dir.path().join("own"), dir.path().join("link"));
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o750)).unwrap();
        symlink(&own, &link).unwrap();
        let before = fs::metadata(&own).unwrap();
        for target in [&own, &link, &link.join(".")] {
            let place = Place::claim(target).unwrap();
            fs::write(place.path().join("f"), "1").unwrap();
            symlink("/", place.path().join("root")).unwrap();
            place.clear().unwrap();
            let after = fs::metadata(&own).unwrap();
            assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
            assert!(link.is_symlink() && fs::read_dir(&own).unwrap().next().is_none());
        }
        let (new, besides) = (dir.path().join("new/b/c"), dir.path().join("new/besides"));
        Place::claim(&new).unwrap().clear().unwrap();
        assert!(!dir.path().join("new").exists());
        let place = Place::claim(&new).unwrap();
        fs::write(&besides, "mine").unwrap();
        place.clear().unwrap();
        assert!(besides.exists() && !new.parent().unwrap().exists());
    }

    #[test]
    fn a_place_has_one_tree_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        let first = Place::claim(&target).unwrap();
        assert!(matches!(Place::claim(&target), Err(GitError::Occupied { .. })));
        assert!(first.path().join(".git").is_dir(), "the second claim removes nothing");
        let (file, dangling) = (dir.path().join("file"), dir.path().join("dangling"));
        fs::write(&file, "mine").unwrap();
        symlink(dir.path().join("nowhere"), &dangling).unwrap();
        assert!(matches!(Place::claim(&file), Err(GitError::Occupied { .. })));
        assert!(matches!(Place::claim(&dangling), Err(GitError::Io { .. })));
        assert!(dangling.is_symlink() && !dir.path().join("nowhere").exists());
    }
}
