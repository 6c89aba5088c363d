//! Access rights of new files: for the owner alone, whatever the umask is, or also for the group of a shared store.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use crate::plain::{self, Dir};

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;
const GROUP_FILE: u32 = 0o660;
/// With set-group-ID, so that new entries get the directory's group.
const GROUP_DIR: u32 = 0o2770;
/// The mode bits that mark a store as shared with its group.
const OF_GROUP: u32 = 0o2020;

/// Options that create a file for its owner alone. They do not follow a symbolic link, and opening a pipe does not wait.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(PRIVATE_FILE).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

/// Opens the file at `path`, and creates it for its owner alone if it does not exist.
///
/// # Errors
/// If `path` is not a regular file, for example a symbolic link.
pub fn make_private_file(path: &Path) -> io::Result<File> {
    plain::make(path)
}

/// Creates an empty file at `path` for its owner alone. An existing name is removed first; other hard links keep the old contents.
pub fn replace_private_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    private().write(true).create_new(true).open(path)
}

/// Creates the directory `dir` and its missing parents, for their owner alone.
pub fn make_private_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir)
}

/// Users that can read and write a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only the owner.
    Owner,
    /// The owner and the group.
    Group,
}

impl Access {
    /// The access rights of the store at `dir`. All machines read them from the mode of the directory: 2770 means `Group`.
    pub fn of(dir: &Path) -> Self {
        match fs::metadata(dir) {
            Ok(found) if found.permissions().mode() & OF_GROUP == OF_GROUP => Self::Group,
            _ => Self::Owner,
        }
    }

    /// Opens the directory `name` in `dir`, a directory of the store, and creates it if it does not exist. Also returns whether it was
    /// created.
    pub fn make_dir(self, dir: &Dir, name: &str) -> io::Result<(Dir, bool)> {
        let (made, is_new) = dir.make_dir(name)?;
        if is_new && self == Self::Group {
            // The umask may have removed the group's rights.
            made.itself()?.set_permissions(Permissions::from_mode(GROUP_DIR))?;
        }
        Ok((made, is_new))
    }

    /// Gives a private file of this process the access rights of the store.
    pub fn give(self, file: &File) -> io::Result<()> {
        match self {
            Self::Owner => Ok(()),
            Self::Group => file.set_permissions(Permissions::from_mode(GROUP_FILE)),
        }
    }
}

/// A file or directory that cannot be shared with its group.
#[derive(Debug, thiserror::Error)]
#[error("cannot share `{}` with its group: {why}", path.display())]
pub struct ShareError {
    path: PathBuf,
    why: String,
}

/// Shares the store at `dir` and its contents with the directory's group. The directory itself is changed last, so that a store that
/// counts as shared is shared completely.
///
/// # Errors
/// If anything in it belongs to another user, or the directory to a group that this process is not in.
pub fn share(dir: &Path) -> Result<(), ShareError> {
    if Access::of(dir) == Access::Group {
        return Ok(());
    }
    let failed = |error: io::Error| ShareError { path: dir.to_owned(), why: error.to_string() };
    share_all(&Dir::open(dir).map_err(failed)?, DEPTH)?;
    match Access::of(dir) {
        Access::Group => Ok(()),
        Access::Owner => {
            let why = "the system removed the set-group-ID bit; add this user to the directory's group".to_owned();
            Err(ShareError { path: dir.to_owned(), why })
        }
    }
}

/// Levels of directories below a store's at which sharing stops with an error. A store has two levels.
const DEPTH: u32 = 8;

/// Shares the contents of `dir`, and then `dir`. Links are skipped. Everything is opened relative to `dir`, because another user may
/// exchange a path.
fn share_all(dir: &Dir, depth: u32) -> Result<(), ShareError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| ShareError { path, why: error.to_string() }
    };
    if depth == 0 {
        return Err(failed(dir.path())(io::Error::other("directories of a store are never that deep; remove it")));
    }
    for name in dir.names().map_err(failed(dir.path()))? {
        let path = dir.path().join(&name);
        match dir.kind(&name).map_err(failed(&path))? {
            FileType::Directory => share_all(&dir.dir(&name).map_err(failed(&path))?, depth - 1)?,
            FileType::RegularFile => {
                let given = dir.file(&name).and_then(|file| file.set_permissions(Permissions::from_mode(GROUP_FILE)));
                given.map_err(failed(&path))?;
            }
            _ => {}
        }
    }
    let given = dir.itself().and_then(|dir| dir.set_permissions(Permissions::from_mode(GROUP_DIR)));
    given.map_err(failed(dir.path()))
}

#[cfg(test)]
mod tests {
    use lockstep_support::{mode, modes};

    use super::*;
    use crate::durable;

    #[test]
    fn nothing_is_written_through_a_link_that_has_a_files_name() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link, pipe) = (dir.path().join("victim"), dir.path().join("link"), dir.path().join("pipe"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(private().write(true).truncate(true).open(&link).is_err());
        assert!(make_private_file(&link).is_err() && make_private_file(dir.path()).is_err());
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let refused = make_private_file(&pipe).unwrap_err().to_string();
        assert!(refused.contains("not a regular file"), "{refused}");
        let hard = dir.path().join("hard");
        fs::hard_link(&victim, &hard).unwrap();
        for name in [&link, &hard, &pipe] {
            let made = replace_private_file(name).unwrap().metadata().unwrap();
            assert!(made.is_file() && made.len() == 0 && mode(name) == PRIVATE_FILE, "{}", name.display());
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn what_is_made_for_the_owner_is_so_whatever_is_above() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        make_private_dirs(&dir.path().join("a/b")).unwrap();
        make_private_file(&dir.path().join("a/b/f")).unwrap();
        let _lock = durable::DirLock::acquire(&dir.path().join("data")).unwrap();
        for name in ["a", "data"] {
            assert_eq!(modes(&dir.path().join(name)), [PRIVATE_FILE, PRIVATE_DIR], "{name}");
        }
    }
}
