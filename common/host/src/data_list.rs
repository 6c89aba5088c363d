//! The files of a directory of data, in one order whatever the file system's.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::data::DataHashError;

/// The files at or below `path`: as `path` and what follows, sorted. Links to files count as files; hidden files too.
///
/// # Errors
/// What is neither file nor directory, a link to a directory (it may lead back), a name that is not UTF-8.
pub fn list(path: &Path) -> Result<Vec<String>, DataHashError> {
    let kind = fs::metadata(path).map_err(|source| unreadable(path, source))?.file_type();
    if !kind.is_dir() {
        return Ok(vec![name(path.to_owned(), kind)?]);
    }
    let mut found = walk(path)?;
    found.sort_unstable();
    Ok(found)
}

/// The files of the directory `path`, as [`list`] has them, but relative to it.
///
/// # Errors
/// As [`list`]; `Empty` if there is none.
pub fn list_below(path: &Path) -> Result<Vec<String>, DataHashError> {
    let root = path.to_string_lossy().trim_end_matches('/').len() + 1;
    let files: Vec<String> = list(path)?.iter().map(|file| file[root..].to_owned()).collect();
    if files.is_empty() { Err(DataHashError::Empty { path: path.to_owned() }) } else { Ok(files) }
}

/// The files below the directory `path`, in no order; directories beside each other on all cores.
fn walk(path: &Path) -> Result<Vec<String>, DataHashError> {
    let (mut found, mut below) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(|source| unreadable(path, source))? {
        let entry = entry.map_err(|source| unreadable(path, source))?;
        let (path, mut kind) = (entry.path(), entry.file_type().map_err(|source| unreadable(path, source))?);
        if kind.is_symlink() {
            kind = fs::metadata(&path).map_err(|source| unreadable(&path, source))?.file_type();
            if kind.is_dir() {
                return Err(DataHashError::LinkToDirectory { path });
            }
        }
        if kind.is_dir() {
            below.push(path);
        } else {
            found.push(name(path, kind)?);
        }
    }
    let below = below.par_iter().map(|path| walk(path)).collect::<Result<Vec<_>, _>>()?;
    found.extend(below.into_iter().flatten());
    Ok(found)
}

/// The name of what should be a file.
fn name(path: PathBuf, kind: FileType) -> Result<String, DataHashError> {
    if !kind.is_file() {
        return Err(DataHashError::NotAFile { path });
    }
    path.into_os_string().into_string().map_err(|name| DataHashError::NotUtf8 { path: name.into() })
}

fn unreadable(path: &Path, source: io::Error) -> DataHashError {
    match source.kind() {
        io::ErrorKind::NotFound => DataHashError::Missing { path: path.to_owned() },
        _ => DataHashError::Io { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_listed_in_one_order_and_what_is_no_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a/z", "a/.hidden", "a-b"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
        }
        symlink(dir.path().join("b"), dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        let listed = list(dir.path()).unwrap();
        let prefix = format!("{}/", dir.path().display());
        let names: Vec<_> = listed.iter().map(|name| name.strip_prefix(&prefix).unwrap()).collect();
        assert_eq!(names, ["a-b", "a/.hidden", "a/z", "b", "link"]);
        assert_eq!(list(&dir.path().join("b")).unwrap(), [format!("{prefix}b")]);

        assert_eq!(list_below(&dir.path().join("a/")).unwrap(), [".hidden", "z"]);
        assert!(matches!(list_below(&dir.path().join("empty")), Err(DataHashError::Empty { .. })));
        symlink("..", dir.path().join("a/up")).unwrap();
        assert!(matches!(list(dir.path()), Err(DataHashError::LinkToDirectory { path }) if path.ends_with("a/up")));
        fs::remove_file(dir.path().join("a/up")).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert!(matches!(list(dir.path()), Err(DataHashError::Missing { path }) if path.ends_with("dangling")));
        fs::remove_file(dir.path().join("dangling")).unwrap();
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        assert!(matches!(list(dir.path()), Err(DataHashError::NotUtf8 { .. })));
        assert!(matches!(list(Path::new("/dev/null")), Err(DataHashError::NotAFile { .. })));
    }
}
