//! Files of a store that are being written: locked by whoever writes them, and deleted when their writer is gone.
//!
//! The store is shared, so other machines' saves lie there too. Where a file system has no locks, age alone tells. Only what has a
//! name that a store gives is deleted.

use std::fs::{self, File};
use std::io;
use std::time::Duration;

use lockstep_host::plain::Dir;

use crate::unfinished::is_name;

/// Deletes the files in `tmp` that nobody has written to for `age`, and nobody has locked; how many those were.
pub(crate) fn sweep(tmp: &Dir, age: Duration) -> io::Result<usize> {
    let mut deleted = 0;
    for name in tmp.names()? {
        if let Some(name) = name.to_str().filter(|name| is_name(name)) {
            // Whoever has removed it meanwhile, or made it for another user, knows why.
            deleted += usize::from(delete(tmp, name, age).unwrap_or_default());
        }
    }
    Ok(deleted)
}

fn delete(tmp: &Dir, name: &str, age: Duration) -> io::Result<bool> {
    let is_left =
        |file: &File| Ok::<_, io::Error>(file.metadata()?.modified()?.elapsed().is_ok_and(|since| since > age));
    if !is_left(&tmp.file(name)?)? {
        return Ok(false);
    }
    // For writing: over NFS no other file is locked.
    let file = tmp.existing(name)?;
    if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) || !is_left(&file)? || !tmp.has(&file, name)? {
        return Ok(false);
    }
    tmp.remove(name)?;
    Ok(true)
}
