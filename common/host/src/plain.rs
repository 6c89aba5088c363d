//! Safe access to directories that others can write to: a shared store, a directory that came with a repository.
//!
//! ```text
//!  path of the operator ──Dir::open──▶ Dir ──dir(name)──▶ Dir ──file(name)──▶ File
//!     may be a link                     each name below: no link, no pipe, no device
//! ```
//!
//! Below the first directory no link is followed. No open waits, as opening a pipe would, and no read is unbounded. Directories are
//! kept open, so that exchanging one by a link has no effect.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Flags of every open: opening a pipe does not wait, and a link as the last component is an error.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIR: Mode = Mode::RWXU;

/// An open directory. Files are opened relative to it, by a single name.
#[derive(Debug)]
pub struct Dir {
    at: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens the directory at `path`. Links in `path` are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let at = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { at, path: path.to_owned() })
    }

    /// Opens the subdirectory `name`.
    ///
    /// # Errors
    /// If it does not exist, or is not a directory, for example a link.
    pub fn dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = openat(&self.at, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => self.refused(name, "directory"),
            other => other.into(),
        })?;
        Ok(Self { at, path: self.path.join(name) })
    }

    /// As [`Dir::dir`], but creates the directory for its owner alone if it does not exist. Also returns whether it was created.
    pub fn make_dir(&self, name: impl AsRef<OsStr>) -> io::Result<(Self, bool)> {
        let name = name.as_ref();
        let made = match mkdirat(&self.at, name, PRIVATE_DIR) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        Ok((self.dir(name)?, made))
    }

    /// Opens the file `name` for reading.
    ///
    /// # Errors
    /// If it does not exist, or is not a regular file, for example a link.
    pub fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.opened(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens the file `name` for reading and appending, and creates it for its owner alone if it does not exist.
    ///
    /// # Errors
    /// As [`Dir::file`], and if the file has other hard links: they may be anywhere.
    pub fn append(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let file = self.opened(name.as_ref(), OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)?;
        alone(file)
    }

    /// Opens the existing file `name` for reading and writing.
    ///
    /// # Errors
    /// As [`Dir::append`].
    pub fn change(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        alone(self.opened(name.as_ref(), OFlags::RDWR)?)
    }

    /// Opens the existing file `name` for reading and appending, to lock it. The file may have other hard links.
    pub fn existing(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.opened(name.as_ref(), OFlags::RDWR | OFlags::APPEND)
    }

    /// Creates the file `name` for its owner alone and opens it for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` if the name exists.
    pub fn create(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.opened(name.as_ref(), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// The type of the entry `name`. Links are not followed.
    pub fn kind(&self, name: impl AsRef<OsStr>) -> io::Result<FileType> {
        let found = statat(&self.at, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(found.st_mode))
    }

    /// Whether the entry `name` is `file`.
    pub fn has(&self, file: &File, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let own = file.metadata()?;
        match statat(&self.at, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (own.dev(), own.ino())),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file or link `name`.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(&self.at, name.as_ref(), AtFlags::empty())?)
    }

    /// Moves the file `name` to the name `new` in `to`, and replaces an existing file or link.
    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Self, new: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(renameat(&self.at, name.as_ref(), &to.at, new.as_ref())?)
    }

    /// Names of all entries, in no particular order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(self.itself()?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// Opens the directory itself as a file, to sync it or to change its mode.
    pub fn itself(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.at, ".", flags, Mode::empty())?))
    }

    /// Its path when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn opened(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let file = openat(&self.at, name, flags | CAREFUL, PRIVATE_FILE).map_err(|error| match error {
            // LOOP: a link. NXIO: a pipe without a reader, or a socket. ISDIR: a directory, opened for writing.
            Errno::LOOP | Errno::NXIO | Errno::ISDIR => self.refused(name, "regular file"),
            other => other.into(),
        })?;
        regular(File::from(file))
    }

    fn refused(&self, name: &OsStr, wanted: &str) -> io::Error {
        let is_link = self.kind(name).is_ok_and(|kind| kind == FileType::Symlink);
        let found = if is_link { "a symbolic link, " } else { "" };
        io::Error::other(format!("it is {found}not a {wanted}; remove it, and check who can write to its directory"))
    }
}

/// Opens the file at `path` for reading. A link as the last component is an error, and so is everything but a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let (dir, name) = split(path)?;
    Dir::open(dir)?.file(name)
}

/// Opens the file at `path` for reading and writing, and creates it for its owner alone if it does not exist. It rejects the same files
/// as [`open`], and a file with several hard links.
pub fn make(path: &Path) -> io::Result<File> {
    let (dir, name) = split(path)?;
    let file = Dir::open(dir)?.opened(name, OFlags::RDWR | OFlags::CREATE)?;
    alone(file)
}

/// The contents of the file at `path`, opened by [`open`].
///
/// # Errors
/// As [`open`], and if the file has more than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    contents(&open(path)?, most)
}

/// The contents of `file` from its present position on.
///
/// # Errors
/// If there are more than `most` bytes.
pub fn contents(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Searches `dir` recursively for an entry that is not a regular file, directory or socket: a link or a pipe. `None` if there is none.
pub fn stray(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            // For a link this is the type of the link itself.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if !kind.is_file() && !kind.is_socket() {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    Ok((dir.unwrap_or(Path::new(".")), name))
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is not a regular file; remove it, and check who can write to its directory"))
}

/// Rejects a file with several hard links. Unless the system forbids hard links to others' files, the file may be another user's.
fn alone(file: File) -> io::Result<File> {
    match file.metadata()?.nlink() {
        0 | 1 => Ok(file),
        names => {
            Err(io::Error::other(format!("it has {names} hard links, and writing would change all of them; remove it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mknodat;

    use super::*;

    fn pipe(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, PRIVATE_FILE, 0).unwrap();
    }

    #[test]
    fn a_link_a_pipe_and_a_directory_are_no_files_and_nothing_waits_for_them() {
        let place = tempfile::tempdir().unwrap();
        let other = place.path().join("other");
        fs::write(&other, "mine").unwrap();
        symlink(&other, place.path().join("link")).unwrap();
        symlink("/dev/zero", place.path().join("zero")).unwrap();
        fs::create_dir(place.path().join("dir")).unwrap();
        pipe(&place.path().join("pipe"));
        let dir = Dir::open(place.path()).unwrap();
        for name in ["link", "zero", "dir", "pipe"] {
            for opened in [
                dir.file(name),
                dir.append(name),
                dir.change(name),
                make(&place.path().join(name)),
                open(&place.path().join(name)),
            ] {
                let error = opened.unwrap_err();
                assert!(error.to_string().contains("not a regular file"), "{name}: {error}");
            }
            assert_eq!(dir.create(name).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        assert!(dir.file("link").unwrap_err().to_string().contains("a symbolic link"));
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        // A second hard link of a file elsewhere.
        fs::hard_link(&other, place.path().join("second")).unwrap();
        assert!(dir.append("second").unwrap_err().to_string().contains("has 2 hard links"));
        assert!(dir.change("second").is_err() && dir.change("missing").is_err());
        assert!(make(&place.path().join("second")).is_err() && dir.file("second").is_ok());
    }

    #[test]
    fn a_directory_is_no_link_and_stays_the_one_that_was_opened() {
        let place = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("f"), "mine").unwrap();
        symlink(outside.path(), place.path().join("link")).unwrap();
        // The first directory itself may be a link.
        let dir = Dir::open(place.path()).unwrap();
        assert!(Dir::open(&place.path().join("link")).is_ok());
        for refused in [dir.dir("link"), dir.make_dir("link").map(|(dir, _)| dir)] {
            assert!(refused.unwrap_err().to_string().contains("it is a symbolic link, not a directory"));
        }
        let (tmp, made) = dir.make_dir("tmp").unwrap();
        assert!(made && !dir.make_dir("tmp").unwrap().1);
        fs::rename(place.path().join("tmp"), place.path().join("away")).unwrap();
        symlink(outside.path(), place.path().join("tmp")).unwrap();
        tmp.create("f").unwrap();
        assert_eq!(
            (tmp.names().unwrap(), fs::metadata(place.path().join("away/f")).unwrap().len()),
            (vec!["f".into()], 0)
        );
        tmp.rename("f", &tmp, "g").unwrap();
        tmp.remove("g").unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("f")).unwrap(), "mine");
        assert!(matches!(dir.dir("missing"), Err(error) if error.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn no_more_is_read_than_the_bound() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(read(&path, 4).unwrap_err().to_string().contains("more than 4 bytes"));
        assert_eq!(contents(&File::open("/dev/zero").unwrap(), 1 << 16).unwrap_err().kind(), io::ErrorKind::Other);
    }
}
