//! Who may read and write what is made: its owner alone, whatever umask says, or the group of a shared store too.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use crate::plain::{self, Dir};

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;
const GROUP_FILE: u32 = 0o660;
/// New entries get the directory's group.
const GROUP_DIR: u32 = 0o2770;
/// By these a store is known as its group's.
const OF_GROUP: u32 = 0o2020;

/// To make a file for its owner alone. What is there by a link's name is not opened, and nobody waits for the other end of a pipe.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(PRIVATE_FILE).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

/// Makes the file at `path` for its owner alone, if it is not there.
///
/// # Errors
/// If something else than a regular file is there, a symbolic link too.
pub fn make_private_file(path: &Path) -> io::Result<File> {
    plain::make(path)
}

/// Makes an empty file at `path` for its owner alone. A file that has the name loses it, and what it holds stays as it is.
pub fn replace_private_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    private().write(true).create_new(true).open(path)
}

/// Makes the directory `dir` and those above it that are missing, for their owner alone.
pub fn make_private_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir)
}

/// Who may read and write a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner.
    Owner,
    /// Its group too.
    Group,
}

impl Access {
    /// That of the store at `dir`. Its directory says so to all machines: the group's has mode 2770.
    pub fn of(dir: &Path) -> Self {
        match fs::metadata(dir) {
            Ok(found) if found.permissions().mode() & OF_GROUP == OF_GROUP => Self::Group,
            _ => Self::Owner,
        }
    }

    /// Makes the directory `name` in `dir`, which is of the store, if it is not there. Whether it was made.
    pub fn make_dir(self, dir: &Dir, name: &str) -> io::Result<(Dir, bool)> {
        let (made, is_new) = dir.make_dir(name)?;
        if is_new && self == Self::Group {
            // Umask takes the group's right away.
            made.itself()?.set_permissions(Permissions::from_mode(GROUP_DIR))?;
        }
        Ok((made, is_new))
    }

    /// Gives a private file of this process to whom the store belongs.
    pub fn give(self, file: &File) -> io::Result<()> {
        match self {
            Self::Owner => Ok(()),
            Self::Group => file.set_permissions(Permissions::from_mode(GROUP_FILE)),
        }
    }
}

/// What cannot be given to its group.
#[derive(Debug, thiserror::Error)]
#[error("cannot give `{}` to its group: {why}", path.display())]
pub struct ShareError {
    path: PathBuf,
    why: String,
}

/// Gives the store at `dir`, with what is in it, to the directory's group. The directory is the last: a store that is its group's is so
/// as a whole.
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
            let why = "the system takes the set-group-ID bit away: is this user in the directory's group?".to_owned();
            Err(ShareError { path: dir.to_owned(), why })
        }
    }
}

/// A store has two levels below its directory. What lies deeper than this is none.
const DEPTH: u32 = 8;

/// Gives what is in `dir` to its group, and then `dir`. Links are left, and nothing is given by a path, which may be exchanged.
fn share_all(dir: &Dir, depth: u32) -> Result<(), ShareError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| ShareError { path, why: error.to_string() }
    };
    if depth == 0 {
        return Err(failed(dir.path())(io::Error::other("directories of a store are not that deep")));
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
        assert!(refused.contains("no regular file"), "{refused}");
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
