//! A file of a store that has no name of a blob yet, in the store's own directory for those.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::PathBuf;

use lockstep_host::plain::Dir;

use crate::layout::PART;

/// What a store's unfinished files are called.
const PREFIX: &str = ".tmp";

/// Names that are tried. Nobody else knows them, so one is enough.
const TRIES: usize = 16;

/// Removed with the value, unless it got a name.
#[derive(Debug)]
pub(crate) struct Unfinished {
    tmp: Dir,
    name: String,
    pub(crate) file: File,
    has_name: bool,
}

impl Unfinished {
    /// Makes an empty one in `tmp`, held by this process.
    pub(crate) fn new(tmp: Dir) -> io::Result<Self> {
        let mut tried = 0;
        loop {
            // Its keys are random.
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

    /// The one that is called `name` in `tmp`.
    pub(crate) fn of(tmp: Dir, name: String, file: File) -> Self {
        Self { tmp, name, file, has_name: false }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.tmp.path().join(&self.name)
    }

    /// Gives it the name `new` in `dir`, in the place of what is there.
    pub(crate) fn persist(mut self, dir: &Dir, new: &str) -> io::Result<()> {
        self.tmp.rename(&self.name, dir, new)?;
        self.has_name = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.has_name {
            // Else it is deleted as one that nobody writes to.
            let _ = self.tmp.remove(&self.name);
        }
    }
}

/// Marks `file` as being written, for as long as it is open.
fn hold(file: &File) {
    // Without a lock it is kept for a day after its last change.
    let _ = file.try_lock();
}

/// Whether a store gives such a name to an unfinished file: [`Unfinished`], or [`crate::Part`].
pub(crate) fn is_name(name: &str) -> bool {
    let is_part = |digest: &str| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (name.strip_prefix(PREFIX), name.strip_suffix(PART)) {
        (Some(rest), _) => rest.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        (None, Some(digest)) => is_part(digest),
        (None, None) => crate::shared::is_name(name),
    }
}
