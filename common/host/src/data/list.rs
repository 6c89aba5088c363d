//! Lists the files of a directory of data, in an order that does not depend on the file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::DataHashError;
use super::stat_cache::Stamp;

/// A file of data. It need not exist.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name of the file in a job or in a file list.
    pub path: String,
    /// Path of the file on this machine.
    pub at: PathBuf,
    /// Size and times of the file when its directory was read.
    pub(super) stamp: Option<Stamp>,
    /// Whether the file belongs to a directory of data. Such a file may be empty; a file that a job names may not.
    pub(super) in_directory: bool,
    /// The target of a link in a directory, with all links resolved.
    link: Option<PathBuf>,
}

impl Listed {
    /// The file `path`, relative to `base_dir`.
    pub fn new(base_dir: &Path, path: &str) -> Self {
        Self::at(path.to_owned(), base_dir.join(path))
    }

    /// The file that is called `path` and is at `at` on this machine.
    pub fn at(path: String, at: PathBuf) -> Self {
        Self { path, at, stamp: None, in_directory: false, link: None }
    }

    /// The same file as part of a directory of data, so that it may be empty.
    #[must_use]
    pub fn of_directory(self) -> Self {
        Self { in_directory: true, ..self }
    }
}

/// All files at or below `path`, sorted by name. Names begin with `path`. Links to files and hidden files are included.
///
/// # Errors
/// `NotAFile` for an entry that is neither file nor directory; `LinkToDirectory`, because such a link may lead to a parent;
/// `NotUtf8`; `Missing`; `Io`.
pub fn list(path: &Path) -> Result<Vec<Listed>, DataHashError> {
    let kind = fs::metadata(path).map_err(|source| unreadable(path, source))?.file_type();
    let Some(name) = path.to_str() else { return Err(DataHashError::NotUtf8 { path: path.to_owned() }) };
    if kind.is_dir() {
        return walk(path, &format!("{}/", name.trim_end_matches('/'))).map(sorted);
    }
    if !kind.is_file() {
        return Err(DataHashError::NotAFile { path: path.to_owned() });
    }
    Ok(vec![Listed::at(name.to_owned(), path.to_owned())])
}

/// All files below the directory `path`, as [`list`] returns them, but with names relative to `path`.
///
/// # Errors
/// As [`list`]; `Empty` if there are none.
pub fn list_below(path: &Path) -> Result<Vec<Listed>, DataHashError> {
    let files = walk(path, "")?;
    if files.is_empty() { Err(DataHashError::Empty { path: path.to_owned() }) } else { Ok(sorted(files)) }
}

/// Rejects links among `files` that lead out of their directory `dir`, except to targets for which `may_lead_to` is true. The author of
/// the directory may lack access to a target that the user who stores the directory can read.
///
/// # Errors
/// `LinkOut`.
pub fn no_link_out(dir: &Path, files: &[Listed], may_lead_to: &dyn Fn(&Path) -> bool) -> Result<(), DataHashError> {
    let inside = dir.canonicalize().map_err(|source| unreadable(dir, source))?;
    let links = files.iter().filter_map(|file| Some((file, file.link.as_deref()?)));
    for (file, to) in links {
        if !to.starts_with(&inside) && !may_lead_to(to) {
            return Err(DataHashError::LinkOut { path: file.at.clone(), to: to.to_owned(), dir: dir.to_owned() });
        }
    }
    Ok(())
}

fn sorted(mut files: Vec<Listed>) -> Vec<Listed> {
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The files below the directory `path`, in no particular order. Names begin with `prefix`. Directories are read in parallel.
fn walk(path: &Path, prefix: &str) -> Result<Vec<Listed>, DataHashError> {
    let (mut found, mut below) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(|source| unreadable(path, source))? {
        let entry = entry.map_err(|source| unreadable(path, source))?;
        let at = entry.path();
        let Some(name) = at.file_name().and_then(|name| name.to_str()) else {
            return Err(DataHashError::NotUtf8 { path: at });
        };
        let name = format!("{prefix}{name}");
        // `entry.metadata()` uses the open directory, so it is faster than a query by path; and it describes a link, not its target.
        let mut link = None;
        let mut metadata = entry.metadata().map_err(|source| unreadable(&at, source))?;
        if metadata.is_symlink() {
            metadata = fs::metadata(&at).map_err(|source| unreadable(&at, source))?;
            if metadata.is_dir() {
                return Err(DataHashError::LinkToDirectory { path: at });
            }
            link = Some(at.canonicalize().map_err(|source| unreadable(&at, source))?);
        }
        if metadata.is_dir() {
            below.push((at, name + "/"));
        } else if metadata.is_file() {
            found.push(Listed { path: name, at, stamp: Some(Stamp::of(&metadata)), in_directory: true, link });
        } else {
            return Err(DataHashError::NotAFile { path: at });
        }
    }
    let below = below.par_iter().map(|(path, prefix)| walk(path, prefix)).collect::<Result<Vec<_>, _>>()?;
    found.extend(below.into_iter().flatten());
    Ok(found)
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

    fn called(files: &[Listed]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

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
        let names: Vec<_> = listed.iter().map(|file| file.path.strip_prefix(&prefix).unwrap()).collect();
        assert_eq!(names, ["a-b", "a/.hidden", "a/z", "b", "link"]);
        assert_eq!(called(&list(&dir.path().join("b")).unwrap()), [format!("{prefix}b")]);

        let below = list_below(&dir.path().join("a/")).unwrap();
        assert_eq!(called(&below), [".hidden", "z"]);
        assert_eq!(below[1].at, dir.path().join("a/z"));
        for file in listed.iter().chain(&below) {
            assert_eq!(file.stamp, Some(Stamp::of(&fs::metadata(&file.at).unwrap())), "{file:?}: also of a link");
        }
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

    #[test]
    fn a_link_may_lead_to_a_file_of_the_same_directory_and_nowhere_else() {
        let place = tempfile::tempdir().unwrap();
        let (dir, secret) = (place.path().join("dir"), place.path().join("secret"));
        fs::create_dir_all(dir.join("sub")).unwrap();
        for file in [&secret, &dir.join("f")] {
            fs::write(file, "1").unwrap();
        }
        symlink("../f", dir.join("sub/inside")).unwrap();
        // The path of the directory itself may be a link.
        let named = place.path().join("named");
        symlink(&dir, &named).unwrap();
        for named in [&dir, &named] {
            assert!(no_link_out(named, &list(named).unwrap(), &|_| false).is_ok());
        }
        symlink("../../secret", dir.join("sub/next")).unwrap();
        for to in [secret.as_path(), Path::new("next")] {
            let link = dir.join("sub/link");
            symlink(to, &link).unwrap();
            let listed = list_below(&dir).unwrap();
            assert_eq!(called(&listed), ["f", "sub/inside", "sub/link", "sub/next"]);
            let said = no_link_out(&dir, &listed, &|_| false).unwrap_err().to_string();
            for name in [link.display(), dir.display(), secret.canonicalize().unwrap().display()] {
                assert!(said.contains(&format!("`{name}`")), "{said}");
            }
            assert!(no_link_out(&dir, &listed, &|to| to.ends_with("secret")).is_ok());
            fs::remove_file(link).unwrap();
        }
    }
}
