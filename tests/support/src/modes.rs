//! Permission bits of files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The permission bits of the file or directory at `path`.
///
/// # Panics
/// If `path` does not exist.
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// The modes of `dir` and of everything below it, sorted and without duplicates.
///
/// # Panics
/// If a directory cannot be read.
pub fn modes(dir: &Path) -> Vec<u32> {
    let (mut found, mut open) = (vec![mode(dir)], vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("it is a directory") {
            let path = entry.expect("it can be read").path();
            found.push(mode(&path));
            open.extend(Some(path).filter(|path| path.is_dir()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
