//! Files and links of a work tree as git records them, without filters.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use git2::{ObjectType, Oid};

use super::submodules;

pub(super) const FILE: u32 = 0o100_644;
pub(super) const EXECUTABLE: u32 = 0o100_755;
pub(super) const LINK: u32 = 0o120_000;
pub(super) const SUBMODULE: u32 = 0o160_000;

/// Mode and id that git would record for the file or link at `path` in the work tree at `root`, without filters. `None` if there is
/// neither a file nor a link.
pub(super) fn on_disk(root: &Path, path: &Path) -> io::Result<Option<(u32, Oid)>> {
    let hashed = |hashed: Result<Oid, git2::Error>| hashed.map_err(io::Error::other);
    let Some(metadata) = there(root, path)? else { return Ok(None) };
    let path = &root.join(path);
    Ok(if metadata.is_symlink() {
        let target = fs::read_link(path)?;
        Some((LINK, hashed(Oid::hash_object(ObjectType::Blob, target.as_os_str().as_bytes()))?))
    } else if metadata.is_file() {
        Some((mode_of(&metadata), hashed(Oid::hash_file(ObjectType::Blob, path))?))
    } else {
        None
    })
}

/// Metadata of `path`; `None` if it does not exist, or is behind a link in the work tree.
pub(super) fn there(root: &Path, path: &Path) -> io::Result<Option<fs::Metadata>> {
    if submodules::behind_link(root, path) {
        return Ok(None);
    }
    match fs::symlink_metadata(root.join(path)) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The mode that git records: executable or not.
pub(super) fn mode_of(file: &fs::Metadata) -> u32 {
    if file.permissions().mode() & 0o100 == 0 { FILE } else { EXECUTABLE }
}
