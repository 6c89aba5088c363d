//! Files and directories of a place in which others can write too: a shared store, a directory that came with a repository.
//!
//! ```text
//!  path of the operator ──Dir::open──▶ Dir ──dir(name)──▶ Dir ──file(name)──▶ File
//!     may be a link                     each name below: no link, no pipe, no device
//! ```
//!
//! No link is followed below the place itself, no opening waits (as that of a pipe does), and nothing is read without a bound. A
//! directory is held open, so that exchanging it meanwhile leads nowhere else.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Of every opening: a pipe is not waited for, and a link at the last name is refused.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIR: Mode = Mode::RWXU;

/// A directory that is open: what is opened in it lies in it.
#[derive(Debug)]
pub struct Dir {
    at: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens the directory at `path`, wherever that leads.
    pub fn open(path: &Path) -> io::Result<Self> {
        let at = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { at, path: path.to_owned() })
    }

    /// Opens the directory `name` in it.
    ///
    /// # Errors
    /// A link, or anything else that is no directory, among others.
    pub fn dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = openat(&self.at, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => self.refused(name, "directory"),
            other => other.into(),
        })?;
        Ok(Self { at, path: self.path.join(name) })
    }

    /// The same, made for its owner alone if it is not there. Whether it was made.
    pub fn make_dir(&self, name: impl AsRef<OsStr>) -> io::Result<(Self, bool)> {
        let name = name.as_ref();
        let made = match mkdirat(&self.at, name, PRIVATE_DIR) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        Ok((self.dir(name)?, made))
    }

    /// Opens the file `name` in it, to be read.
    ///
    /// # Errors
    /// A link, or anything else that is no regular file, among others.
    pub fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.opened(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens the file `name` in it, to be read and added to, and makes it for its owner alone if it is not there.
    ///
    /// # Errors
    /// As [`Dir::file`], and a file that has another name too, which may be anywhere.
    pub fn append(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let file = self.opened(name.as_ref(), OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)?;
        alone(file)
    }

    /// Opens the file `name` in it, which is there, to be read and changed.
    ///
    /// # Errors
    /// As [`Dir::append`].
    pub fn change(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        alone(self.opened(name.as_ref(), OFlags::RDWR)?)
    }

    /// The same, of a file that is there, to be locked by whoever may write to it.
    pub fn existing(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.opened(name.as_ref(), OFlags::RDWR | OFlags::APPEND)
    }

    /// Makes the file `name` in it for its owner alone, to be read and written.
    ///
    /// # Errors
    /// `AlreadyExists` if anything has that name.
    pub fn create(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.opened(name.as_ref(), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// What has that name in it, if it is a file or a directory; a link is neither.
    pub fn kind(&self, name: impl AsRef<OsStr>) -> io::Result<FileType> {
        let found = statat(&self.at, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(found.st_mode))
    }

    /// Whether `file` has that name in it.
    pub fn has(&self, file: &File, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let own = file.metadata()?;
        match statat(&self.at, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (own.dev(), own.ino())),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file, or the link, `name`.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(&self.at, name.as_ref(), AtFlags::empty())?)
    }

    /// Gives the file `name` the name `new` in `to`, in the place of a file or a link there.
    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Self, new: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(renameat(&self.at, name.as_ref(), &to.at, new.as_ref())?)
    }

    /// The names in it.
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

    /// Itself as a file: to be synced, or given another mode.
    pub fn itself(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.at, ".", flags, Mode::empty())?))
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn opened(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let file = openat(&self.at, name, flags | CAREFUL, PRIVATE_FILE).map_err(|error| match error {
            // A link; a pipe that nobody reads, or a socket; a directory that is to be written to.
            Errno::LOOP | Errno::NXIO | Errno::ISDIR => self.refused(name, "regular file"),
            other => other.into(),
        })?;
        regular(File::from(file))
    }

    fn refused(&self, name: &OsStr, wanted: &str) -> io::Error {
        let is_link = self.kind(name).is_ok_and(|kind| kind == FileType::Symlink);
        let found = if is_link { "a symbolic link and " } else { "" };
        io::Error::other(format!("it is {found}no {wanted}: whoever can write there has put it there; remove it"))
    }
}

/// Opens the file at `path` to be read; a link at its last name is refused, and whatever is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let (dir, name) = split(path)?;
    Dir::open(dir)?.file(name)
}

/// Opens the file at `path` to be read and written, and makes it for its owner alone if it is not there; as careful as [`open`], and
/// a file with a second name is refused.
pub fn make(path: &Path) -> io::Result<File> {
    let (dir, name) = split(path)?;
    let file = Dir::open(dir)?.opened(name, OFlags::RDWR | OFlags::CREATE)?;
    alone(file)
}

/// The contents of the file at `path`, opened by [`open`].
///
/// # Errors
/// A file of more than `most` bytes, among others.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    contents(&open(path)?, most)
}

/// The contents of `file`, from where it stands.
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

/// Something in `dir`, however deep, that is no regular file, directory or socket: a link, a pipe. `None`: there is nothing.
pub fn stray(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            // Of a link it is the link's own.
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
    Err(io::Error::other("it is no regular file: whoever can write there has put it there; remove it"))
}

/// Where links to others' files are not forbidden by the system, a second name may be one of theirs.
fn alone(file: File) -> io::Result<File> {
    match file.metadata()?.nlink() {
        0 | 1 => Ok(file),
        names => Err(io::Error::other(format!("the file has {names} names, and writing would change all of them"))),
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
                assert!(error.to_string().contains("no regular file"), "{name}: {error}");
            }
            assert_eq!(dir.create(name).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        assert!(dir.file("link").unwrap_err().to_string().contains("a symbolic link"));
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        // A second name of a file that is anywhere.
        fs::hard_link(&other, place.path().join("second")).unwrap();
        assert!(dir.append("second").unwrap_err().to_string().contains("has 2 names"));
        assert!(dir.change("second").is_err() && dir.change("missing").is_err());
        assert!(make(&place.path().join("second")).is_err() && dir.file("second").is_ok());
    }

    #[test]
    fn a_directory_is_no_link_and_stays_the_one_that_was_opened() {
        let place = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("f"), "mine").unwrap();
        symlink(outside.path(), place.path().join("link")).unwrap();
        // The place itself may be one.
        let dir = Dir::open(place.path()).unwrap();
        assert!(Dir::open(&place.path().join("link")).is_ok());
        for refused in [dir.dir("link"), dir.make_dir("link").map(|(dir, _)| dir)] {
            assert!(refused.unwrap_err().to_string().contains("it is a symbolic link and no directory"));
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
