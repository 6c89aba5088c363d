//! Clean-up of unfinished files: their writers lock them, and files of dead writers are deleted.
//!
//! The store is shared, so other machines' unfinished files are in it, too. On a file system without locks, only the age decides.
//! Only files with a name that a store makes are deleted.

use std::fs::{self, File};
use std::io;
use std::time::Duration;

use lockstep_host::plain::Dir;

use crate::unfinished::is_name;

/// Deletes the files in `tmp` that did not change for `age` and are not locked. Returns their number.
pub(crate) fn sweep(tmp: &Dir, age: Duration) -> io::Result<usize> {
    let mut deleted = 0;
    for name in tmp.names()? {
        if let Some(name) = name.to_str().filter(|name| is_name(name)) {
            // An error is no problem: another process removed the file, or it belongs to another user.
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
    // NFS can lock a file only if it is open for writing.
    let file = tmp.existing(name)?;
    if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) || !is_left(&file)? || !tmp.has(&file, name)? {
        return Ok(false);
    }
    tmp.remove(name)?;
    Ok(true)
}
