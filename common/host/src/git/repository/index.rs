//! An index that vouches for no file, and one that libgit2 does not read, sparse or split, in the form that it reads.
//!
//! An entry says of which size and times its file was when it was like the commit, and whoever hands out a repository with its index can
//! write those of another file there. libgit2 compares contents where a file is younger than the index; so it gets a copy that is older
//! than all files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use git2::{Index, Repository};
use tempfile::TempDir;

use super::super::command::git;

/// Seconds since 1970, the earliest first that a file system may keep; at 0 libgit2 takes an index for one without a time.
const BEFORE_ALL_FILES: [i64; 2] = [i32::MIN as i64, 1];

/// Gives `repository` a copy of its index that vouches for no file. It lies in the directory that comes back; none without an index.
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

/// The index in the file `path`, as old as can be.
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
        "the file system of the directory for temporary files (`TMPDIR`) does not keep the times of files",
    ))
}

/// Gives `repository` its index as git writes it, which lies in the directory that comes back; none if git is not installed, or
/// cannot either.
pub(in crate::git) fn rewrite(repository: &Repository) -> Result<Option<TempDir>, git2::Error> {
    let Ok(Some(dir)) = written(repository) else { return Ok(None) };
    let index = aged(&dir.path().join(".git/index"));
    let mut index = index.map_err(|error| git2::Error::from_str(&error.to_string()))?;
    repository.set_index(&mut index)?;
    Ok(Some(dir))
}

/// A repository with no configuration, which has a copy of the index, and reads the objects.
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

/// With its time: a file that changed when its index was written is known by that.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::options().append(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)
}
