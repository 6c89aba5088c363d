//! Marks, by which an older copy of the store is known.
//!
//! ```text
//! STORE/store-mark     the newest mark
//! DATA/store-marks     all marks that this coordinator drew or replaced, a line each; ` ?` behind those that may not have reached the store
//! ```
//!
//! A copy of a store has its id. A mark is drawn whenever the coordinator finds the store in a directory that it does not know, at
//! each start for one, and before the last checkpoint of a run counts; so a copy that was left behind holds a mark that was replaced
//! since. Marks of other coordinators of the store are remembered when they are replaced.

use std::io;
use std::path::{Path, PathBuf};

use lockstep_host::access::Access;
use lockstep_host::{durable, plain};
use lockstep_store::shared::MARK;
use tracing::warn;

use super::error::IdentityError;

/// Draws an id, or a mark.
pub(super) type Draw = fn() -> io::Result<String>;

/// A directory, whatever lies at its path now: its device, and its number there.
pub(super) type Inode = (u64, u64);

/// Marks that are remembered, the newest.
const MOST: usize = 10_000;

/// Longest mark (bytes) of another coordinator that is remembered.
const MARK_BYTES: usize = 64;

/// Longest file (bytes) of marks that is read.
const FILE_BYTES: u64 = 4 << 20;

/// Behind a mark that may not have reached the store.
const PENDING: &str = " ?";

#[derive(Debug)]
pub(super) struct Marks {
    data: PathBuf,
    store: PathBuf,
    drawn: Vec<String>,
    /// Those of `drawn`, from the newest, that may not have reached the store.
    pending: usize,
    /// The directory that was marked last.
    inode: Option<Inode>,
}

impl Marks {
    pub(super) fn read(store: &Path, data_dir: &Path) -> Result<Self, IdentityError> {
        let (data, store) = (data_dir.join("store-marks"), store.join(MARK));
        let text = text(&data)?.unwrap_or_default();
        let pending = text.lines().rev().take_while(|line| line.ends_with(PENDING)).count();
        let drawn = text.lines().map(|line| line.trim_end_matches(PENDING).to_owned()).collect();
        Ok(Self { data, store, drawn, pending, inode: None })
    }

    /// Forgets the marks: they are of another store.
    pub(super) fn forget(&mut self) {
        self.drawn.clear();
        self.pending = 0;
    }

    /// That the store in the directory `inode` is no older copy. In another directory than before, it gets a new mark.
    ///
    /// # Errors
    /// `Older`.
    pub(super) fn check(&mut self, inode: Inode, draw: Draw) -> Result<(), IdentityError> {
        let reached = self.drawn.len() - self.pending;
        let is_older = match text(&self.store)? {
            // One that is not known here is of another coordinator, or of a start that this data directory has forgotten.
            Some(mark) => self.drawn[..reached.saturating_sub(1)].iter().any(|old| old == mark.trim()),
            None => reached > 0,
        };
        if is_older {
            let store = self.store.parent().unwrap_or(&self.store).to_owned();
            return Err(IdentityError::Older { store, marks: self.data.clone() });
        }
        if self.inode != Some(inode) {
            self.renew(draw)?;
            self.inode = Some(inode);
        }
        Ok(())
    }

    /// A store that cannot be written keeps the mark that it has.
    pub(super) fn renew(&mut self, draw: Draw) -> Result<(), IdentityError> {
        if let Some(replaced) = text(&self.store)?.map(|text| text.trim().to_owned())
            && !replaced.is_empty()
            && replaced.len() <= MARK_BYTES
            && replaced.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && !self.drawn.contains(&replaced)
        {
            self.drawn.insert(self.drawn.len() - self.pending, replaced);
        }
        let mark = draw().map_err(|source| io_error("draw a mark for", &self.store, source))?;
        self.drawn.push(mark);
        self.pending += 1;
        self.drawn.drain(..self.drawn.len().saturating_sub(MOST));
        self.pending = self.pending.min(self.drawn.len());
        self.keep()?;
        let access = Access::of(self.store.parent().unwrap_or(Path::new(".")));
        let line = format!("{}\n", self.drawn[self.drawn.len() - 1]);
        match durable::write_atomic_in(&self.store, line.as_bytes(), access) {
            Ok(()) => {
                self.pending = 0;
                self.keep()
            }
            Err(error) => {
                warn!(mark = %self.store.display(), "the store gets no new mark: {error}");
                Ok(())
            }
        }
    }

    fn keep(&self) -> Result<(), IdentityError> {
        let reached = self.drawn.len() - self.pending;
        let end = |number| if number < reached { "" } else { PENDING };
        let lines = self.drawn.iter().enumerate().map(|(number, mark)| format!("{mark}{}\n", end(number)));
        let written = durable::write_atomic(&self.data, lines.collect::<String>().as_bytes());
        written.map_err(|source| io_error("write", &self.data, source))
    }
}

fn text(path: &Path) -> Result<Option<String>, IdentityError> {
    match plain::read(path, FILE_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(io_error("read", path, source)),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { action, path: path.to_owned(), source }
}
