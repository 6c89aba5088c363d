//! The identity of a coordinator's store: determined at the start, and checked before each use.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lockstep_common::manifest::Piece;
use lockstep_host::access::Access;
use lockstep_host::{durable, plain};
use lockstep_store::BlobStore;
use tracing::warn;

use super::FILE;
use super::error::IdentityError;
use super::marks::{Draw, Inode, Marks};

/// Maximum length of an id, in bytes.
const ID_BYTES: usize = 64;

/// The identity of the store that this process uses. Clones share it.
#[derive(Clone, Debug)]
pub struct Identity {
    store: PathBuf,
    remembered: PathBuf,
    /// Unset while the store is full, so that its id could not be written.
    id: Arc<OnceLock<String>>,
    /// The id for a store that has none.
    drawn: String,
    /// The store's directory at the start; compared as long as `id` is unset.
    inode: Option<Inode>,
    draw: Draw,
    marks: Arc<Mutex<Marks>>,
}

impl Identity {
    /// Determines the identity of the store at `store`, for the coordinator with its state in `data_dir`.
    ///
    /// If `data_dir` names a store, this must be that store. Otherwise the store is accepted if it has an id, if it has one of the blobs
    /// `known`, or if `known` is empty. Creates the directory of a new store.
    ///
    /// # Errors
    /// `Other` if `data_dir` names another store, `Empty` if the store has neither an id nor one of the blobs `known`, `Older` if
    /// it is an older copy.
    pub fn take<E: From<IdentityError>>(
        store: &Path,
        data_dir: &Path,
        known: impl FnOnce() -> Result<Vec<Piece>, E>,
        draw: fn() -> io::Result<String>,
    ) -> Result<Self, E> {
        let remembered = data_dir.join(FILE);
        let io = |action, path: &Path, source| IdentityError::Io { action, path: path.to_owned(), source };
        let id = read(&remembered)?;
        let mut this = Self {
            store: store.to_owned(),
            remembered,
            id: Arc::default(),
            drawn: String::new(),
            inode: None,
            marks: Arc::new(Mutex::new(Marks::read(store, data_dir)?)),
            draw,
        };
        if let Some(id) = id {
            this.id = Arc::new(OnceLock::from(id));
            this.check()?;
            return Ok(this);
        }
        if read(&store.join(FILE))?.is_none() {
            let known = known()?;
            let is_there = |piece: &Piece| BlobStore::existing(store).is_ok_and(|store| store.check(piece).is_ok());
            if !known.is_empty() && !known.iter().any(is_there) {
                return Err(IdentityError::Empty { store: store.to_owned() }.into());
            }
        }
        this.marks.lock().unwrap_or_else(PoisonError::into_inner).forget();
        durable::make_private_dir(store).map_err(|source| io("make", store, source))?;
        this.drawn = draw().map_err(|source| io("draw an id for", store, source))?;
        this.inode = Some(this.inode()?);
        this.check()?;
        Ok(this)
    }

    /// Checks that the directory is still the same store.
    ///
    /// # Errors
    /// `Other` if it is another store, or no longer mounted; `Older` if it is an older copy.
    pub fn check(&self) -> Result<(), IdentityError> {
        if self.id.get().is_none() {
            if self.inode != Some(self.inode()?) {
                let source = io::Error::other("it is not the directory that was here when this coordinator started");
                return Err(IdentityError::Io { action: "use", path: self.store.clone(), source });
            }
            self.give()?;
        }
        // Without an id the store is still full; its directory was compared above.
        let Some(expected) = self.id.get() else { return Ok(()) };
        let found = match read(&self.store.join(FILE))? {
            Some(id) if id == *expected => {
                let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
                return marks.check(self.inode()?, self.draw);
            }
            Some(id) => format!("it is the store `{id}`"),
            None if self.store.is_dir() => format!("it has no file `{FILE}`"),
            None => "there is no such directory".to_owned(),
        };
        let (store, remembered, expected) = (self.store.clone(), self.remembered.clone(), expected.clone());
        Err(IdentityError::Other { store, found, remembered, expected })
    }

    /// Writes a new mark into the store, so that copies made before count as older copies.
    ///
    /// # Errors
    /// `Io` if the mark cannot be written in the data directory. If it cannot be written in the store, the store keeps its old mark,
    /// and a warning is logged.
    pub fn mark(&self) -> Result<(), IdentityError> {
        if self.id.get().is_none() {
            return Ok(());
        }
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).renew(self.draw)
    }

    /// Writes an id into the store if it has none, and the store's id into the data directory. If the store is full, it stays usable, and
    /// the next check retries.
    fn give(&self) -> Result<(), IdentityError> {
        let path = self.store.join(FILE);
        let io = |path: &Path, source| IdentityError::Io { action: "write", path: path.to_owned(), source };
        let id = if let Some(id) = read(&path)? {
            id
        } else {
            let access = Access::of(&self.store);
            match durable::write_atomic_in(&path, format!("{}\n", self.drawn).as_bytes(), access) {
                Ok(()) => self.drawn.clone(),
                Err(error) if durable::is_full(&error) => {
                    warn!(store = %self.store.display(), "the store is full: cannot write `{FILE}`, retrying at the next check: {error}");
                    return Ok(());
                }
                Err(source) => return Err(io(&path, source)),
            }
        };
        let remember = durable::write_atomic(&self.remembered, format!("{id}\n").as_bytes());
        remember.map_err(|source| io(&self.remembered, source))?;
        // Another clone may have set the same id first.
        let _id = self.id.set(id);
        Ok(())
    }

    fn inode(&self) -> Result<Inode, IdentityError> {
        let found = fs::metadata(&self.store);
        let found = found.map_err(|source| IdentityError::Io { action: "read", path: self.store.clone(), source })?;
        Ok((found.dev(), found.ino()))
    }
}

/// The id in the file at `path`, if there is such a file.
fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let io = |source| IdentityError::Io { action: "read", path: path.to_owned(), source };
    match plain::read(path, 2 * ID_BYTES as u64) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).unwrap_or_default().trim().to_owned();
            if text.is_empty() || text.len() > ID_BYTES || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(io(io::Error::other("its contents are not the id of a store")));
            }
            Ok(Some(text))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests;
