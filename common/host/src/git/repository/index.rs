//! Copies of a repository's index: one in which no entry vouches for a file, and one that converts a sparse or split index to a form
//! that libgit2 can read.
//!
//! An index entry has the size and times that its file had when it was equal to the commit. Git does not compare a file's contents while
//! these match. A repository's author can forge an entry for a changed file. libgit2 compares contents if a file is newer than the
//! index, so it gets a copy of the index that is older than all files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use git2::{Index, Repository};
use tempfile::TempDir;

use super::super::command::git;

/// Times for the index in seconds since 1970. The first one that the file system supports is used. With 0, libgit2 assumes that the
/// index has no time.
const BEFORE_ALL_FILES: [i64; 2] = [i32::MIN as i64, 1];

/// Gives `repository` a copy of its index that vouches for no file. The copy is in the returned directory; `None` if there is no index.
pub(in crate::git) fn distrust(repository: &Repository) -> io::Result<Option<TempDir>> {
    let dir = tempfile::tempdir()?;
    let own = dir.path().join("index");
    match fs::copy(repository.path().join("index"), &own) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        copied => copied?,
    };
    let mut index = aged(&own)?;
    repository.set_index(&mut index).map_err(io::Error::other)?;
    Ok(Some(dir))
}

/// Opens the index at `path`, after setting its time before that of all files.
fn aged(path: &Path) -> io::Result<Index> {
    let file = File::options().append(true).open(path)?;
    for seconds in BEFORE_ALL_FILES {
        let span = Duration::from_secs(seconds.unsigned_abs());
        let time =
            if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(span) } else { Some(SystemTime::UNIX_EPOCH + span) };
        if let Some(time) = time
            && file.set_modified(time).is_ok()
            && file.metadata()?.mtime() == seconds
        {
            return Index::open(path).map_err(io::Error::other);
        }
    }
    Err(io::Error::other(
        "the file system of the directory for temporary files does not store file times: set `TMPDIR` to another directory",
    ))
}

/// Lets git convert the index of `repository` to a form that libgit2 can read. The converted index is in the returned directory; `None` if
/// git is not installed or cannot convert it.
pub(in crate::git) fn rewrite(repository: &Repository) -> Result<Option<TempDir>, git2::Error> {
    let Ok(Some(dir)) = written(repository) else { return Ok(None) };
    let index = aged(&dir.path().join(".git/index"));
    let mut index = index.map_err(|error| git2::Error::from_str(&error.to_string()))?;
    repository.set_index(&mut index)?;
    Ok(Some(dir))
}

/// A temporary repository without configuration, with a converted copy of the index and with access to the objects.
fn written(repository: &Repository) -> io::Result<Option<TempDir>> {
    let dir = tempfile::tempdir()?;
    let own = Repository::init(dir.path()).map_err(io::Error::other)?;
    copy(&repository.path().join("index"), &own.path().join("index"))?;
    for from in [repository.path(), repository.commondir()] {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"sharedindex.") {
                copy(&entry.path(), &own.path().join(entry.file_name()))?;
            }
        }
    }
    let mut objects = repository.commondir().join("objects").canonicalize()?.into_os_string();
    objects.push("\n");
    fs::create_dir_all(own.path().join("objects/info"))?;
    fs::write(own.path().join("objects/info/alternates"), objects.as_encoded_bytes())?;
    let done = git()
        .arg("-C")
        .arg(dir.path())
        .args(["-c", "index.sparse=false", "-c", "core.splitIndex=false"])
        .args(["update-index", "--no-split-index", "--force-write-index"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(done.success().then_some(dir))
}

/// Copies a file with its modification time. Git detects by this time that a file changed while the index was written.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::options().append(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)
}
