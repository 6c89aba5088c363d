//! Files of a store that are being written: locked by whoever writes them, and deleted when their writer is gone.
//!
//! The store is shared, so other machines' saves lie there too. Where a file system has no locks, age alone tells.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::durable::is_at;

/// Marks `file` as being written, for as long as it is open.
pub(super) fn hold(file: &File) {
    // Without a lock it is kept for a day after its last change.
    let _ = file.try_lock();
}

/// Deletes the files in `tmp` that nobody has written to for `age`, and nobody has locked; how many those were.
pub(super) fn sweep(tmp: &Path, age: Duration) -> io::Result<usize> {
    let mut deleted = 0;
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        // Whoever has removed it meanwhile, or made it for another user, knows why.
        deleted += usize::from(is_left(&entry, age).and_then(|left| delete(&entry.path(), left)).unwrap_or_default());
    }
    Ok(deleted)
}

fn is_left(entry: &fs::DirEntry, age: Duration) -> io::Result<bool> {
    let metadata = entry.metadata()?;
    Ok(metadata.is_file() && metadata.modified()?.elapsed().is_ok_and(|since| since > age))
}

fn delete(path: &Path, is_left: bool) -> io::Result<bool> {
    if !is_left {
        return Ok(false);
    }
    // For writing: over NFS no other file is locked.
    let file = File::options().append(true).open(path)?;
    if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) || !is_at(&file, path)? {
        return Ok(false);
    }
    fs::remove_file(path)?;
    Ok(true)
}
