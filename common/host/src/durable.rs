//! Atomic, durable writing of files, and directories that one process owns.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::access::{Access, make_private_dirs, make_private_file};
use crate::plain::Dir;

/// Writes `path` so that after a crash it has all of `bytes` or its old contents: temporary file, fsync, rename, fsync of the
/// directory. Only the owner can read and write the file.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_in(path, bytes, Access::Owner)
}

/// As [`write_atomic`], for a file of a store with the access rights `access`.
pub fn write_atomic_in(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    access.give(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_dir(dir)
}

/// Whether `error` means that the disk accepts no more data for now: it is full, over a quota or a size limit, or mounted read-only.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// Creates the directory `dir` and its missing parents, durably.
pub fn make_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|one| !one.as_os_str().is_empty() && !one.exists()).collect();
    fs::create_dir_all(dir)?;
    for made in missing {
        sync_dir(parent_of(made))?;
    }
    Ok(())
}

/// Creates the directory `dir` for its owner alone, whatever the umask is, and its missing parents as [`make_dirs`] does; durably.
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

/// Creates the file at `path` with `make` if it does not exist. `make` writes another file, which is renamed when it is complete.
pub fn make_whole<E: From<io::Error>>(path: &Path, make: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    if path.exists() {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // A killed process may have left this file.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    make(&new)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    Ok(sync_dir(path.parent().unwrap_or(Path::new(".")))?)
}

/// The path and the identity of an open file, to detect that it was removed or replaced.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    /// Notes the identity of the file that is at `path` now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), file: (found.dev(), found.ino()) })
    }

    /// Checks that the same file is still at the path. Data that is written to a removed or replaced file is lost.
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

/// Whether `file` is still at `path`, so that it was neither removed nor replaced.
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
    // `Dir::open` does not wait if `dir` is a pipe.
    Dir::open(dir)?.itself()?.sync_all()
}

/// Why a directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has locked the directory.
    #[error("directory `{}` is in use by process {owner}", dir.display())]
    InUse {
        /// Path of the directory.
        dir: PathBuf,
        /// Process id of the owner, from the lock file.
        owner: String,
    },
    /// The directory or its lock file cannot be created.
    #[error("cannot lock directory `{}`", dir.display())]
    Io {
        /// Path of the directory.
        dir: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Exclusive ownership of a directory while the value lives. The system releases the lock when the process ends, even after a crash.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Creates `dir` if it does not exist, and locks its file `LOCK`.
    ///
    /// # Errors
    /// `InUse` if another process has the lock.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { dir: dir.to_owned(), source };
        // The directory will contain state and secrets.
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
