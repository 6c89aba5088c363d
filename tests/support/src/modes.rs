//! Who may do what with files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The mode of the file or directory at `path`, without its type.
///
/// # Panics
/// If nothing lies there.
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// Modes of `dir` and of everything in it, in order and without doubles.
///
/// # Panics
/// If it cannot be read.
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
