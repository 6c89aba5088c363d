//! An index that libgit2 does not read, sparse or split, in the form that it reads.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Stdio;

use git2::{Index, Repository};
use tempfile::TempDir;

use super::command::git;

/// Gives `repository` its index as git writes it, which lies in the directory that comes back; none if git is not installed, or
/// cannot either.
pub(super) fn rewrite(repository: &Repository) -> Result<Option<TempDir>, git2::Error> {
    let Ok(Some(dir)) = written(repository) else { return Ok(None) };
    let mut index = Index::open(&dir.path().join(".git/index"))?;
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
