//! Unfinished files: they are in the store's directory `tmp` until they are renamed to a blob's name.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::PathBuf;

use lockstep_host::plain::Dir;

use crate::layout::PART;

/// Prefix of the names of unfinished files.
const PREFIX: &str = ".tmp";

/// Names to try. They are random, so the first one is nearly always free.
const TRIES: usize = 16;

/// An unfinished file. Dropping the value removes the file, unless it was renamed to a blob's name.
#[derive(Debug)]
pub(crate) struct Unfinished {
    tmp: Dir,
    name: String,
    pub(crate) file: File,
    has_name: bool,
}

impl Unfinished {
    /// Creates an empty file in `tmp` and locks it.
    pub(crate) fn new(tmp: Dir) -> io::Result<Self> {
        let mut tried = 0;
        loop {
            // `RandomState` has random keys, so the name is random.
            let name = format!("{PREFIX}{:016x}", RandomState::new().hash_one(std::process::id()));
            match tmp.create(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < TRIES => tried += 1,
                file => {
                    let file = file?;
                    hold(&file);
                    return Ok(Self { tmp, name, file, has_name: false });
                }
            }
        }
    }

    /// The unfinished file `name` in `tmp`, which is open as `file`.
    pub(crate) fn of(tmp: Dir, name: String, file: File) -> Self {
        Self { tmp, name, file, has_name: false }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.tmp.path().join(&self.name)
    }

    /// Renames it to `new` in `dir` and replaces an existing file.
    pub(crate) fn persist(mut self, dir: &Dir, new: &str) -> io::Result<()> {
        self.tmp.rename(&self.name, dir, new)?;
        self.has_name = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.has_name {
            // If this fails, `BlobStore::sweep` deletes the file later.
            let _ = self.tmp.remove(&self.name);
        }
    }
}

/// Locks `file` for as long as it is open, so that `BlobStore::sweep` does not delete it.
fn hold(file: &File) {
    // If the file system has no locks, the age of the file protects it.
    let _ = file.try_lock();
}

/// Whether `name` is a name of an unfinished file: an [`Unfinished`], a [`crate::Part`] or a file of [`crate::shared`].
pub(crate) fn is_name(name: &str) -> bool {
    let is_part = |digest: &str| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (name.strip_prefix(PREFIX), name.strip_suffix(PART)) {
        (Some(rest), _) => rest.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        (None, Some(digest)) => is_part(digest),
        (None, None) => crate::shared::is_name(name),
    }
}
