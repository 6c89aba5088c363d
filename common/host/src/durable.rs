//! Files that are whole or not there, and directories that one process owns.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::access::{Access, make_private_dirs, make_private_file};
use crate::plain::Dir;

/// Writes `path` so that after a crash it holds all of `bytes` or what it held before: temporary file, fsync, rename,
/// fsync of the directory. The file is its owner's alone.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_in(path, bytes, Access::Owner)
}

/// The same, in a store to which those of `access` have access.
pub fn write_atomic_in(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    access.give(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_dir(dir)
}

/// Whether a disk takes no more for now: full, over a quota or a limit, or mounted read-only.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// Makes the directory `dir` and those above it that are missing, durably.
pub fn make_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|one| !one.as_os_str().is_empty() && !one.exists()).collect();
    fs::create_dir_all(dir)?;
    for made in missing {
        sync_dir(parent_of(made))?;
    }
    Ok(())
}

/// Makes the directory `dir` for its owner alone, whatever umask says, and as [`make_dirs`] those above it; durably.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    make_dirs(parent_of(dir))?;
    make_private_dirs(dir)?;
    sync_dir(parent_of(dir))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the file at `path` by `make`, if it is not there: under another name first, so that it is never there in part.
pub fn make_whole<E: From<io::Error>>(path: &Path, make: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    if path.exists() {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // Of a start that was killed.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    make(&new)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    Ok(sync_dir(path.parent().unwrap_or(Path::new(".")))?)
}

/// A file that is open, and where it should stay.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    /// The file that is at `path` now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), file: (found.dev(), found.ino()) })
    }

    /// That it still is: what is written to one that was removed or replaced is gone when it is closed.
    pub fn check(&self) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.file => Ok(()),
            Ok(_) => Err(io::Error::other("it was replaced by another file while it was in use")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(io::Error::other("it was removed while it was in use"))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether `file` is what lies at `path`, and not one that was removed or replaced.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the entries of `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // What is no directory is not waited for.
    Dir::open(dir)?.itself()?.sync_all()
}

/// A directory that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("directory `{}` is in use by process {owner}", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Its owner's process id, as written in the lock file.
        owner: String,
    },
    /// The directory or its lock file cannot be made.
    #[error("cannot lock directory `{}`", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Sole ownership of a directory while the value lives; the system gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes `dir` if need be and locks its file `LOCK`.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { dir: dir.to_owned(), source };
        // State, and secrets.
        make_private_dir(dir).map_err(io)?;
        let mut file = make_private_file(&dir.join("LOCK")).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).map_err(io)?;
                return Err(LockError::InUse { dir: dir.to_owned(), owner: owner.trim().to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_made_is_whole_and_one_that_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(dir.path().join("x.new"), "of a start that was killed").unwrap();
        let failed = make_whole(&path, |new| {
            assert!(!new.exists());
            fs::write(new, "half")?;
            Err(io::Error::other("killed"))
        });
        assert!(failed.is_err() && !path.exists());
        make_whole(&path, |new| fs::write(new, "one")).unwrap();
        make_whole(&path, |new| fs::write(new, "two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_removed_or_replaced_while_it_is_open_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "one").unwrap();
        let place = Place::of(&path).unwrap();
        place.check().unwrap();
        fs::rename(&path, dir.path().join("y")).unwrap();
        assert!(place.check().unwrap_err().to_string().contains("removed"));
        fs::write(&path, "one").unwrap();
        assert!(place.check().unwrap_err().to_string().contains("replaced"));
    }

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let error = DirLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("is in use by process {}", std::process::id())), "{error}");
        drop(lock);
        DirLock::acquire(dir.path()).unwrap();
    }
}
