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
//!
//! Each process draws one word at random, and counts its marks: `WORDn1`, `WORDn2`. The newest of a word stands for those before it, so that
//! a mark costs the same however many were drawn.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_host::access::Access;
use lockstep_host::{durable, plain};
use lockstep_store::shared::MARK;
use tracing::warn;

use super::error::IdentityError;

/// Draws an id, or the word of marks.
pub(super) type Draw = fn() -> io::Result<String>;

/// A directory, whatever lies at its path now: its device, and its number there.
pub(super) type Inode = (u64, u64);

/// Words of which marks are remembered, the newest.
const MOST: usize = 10_000;

/// Longest mark (bytes) of another coordinator that is remembered.
const MARK_BYTES: usize = 64;

/// Longest file (bytes) of marks that is read.
const FILE_BYTES: u64 = 4 << 20;

/// Behind a mark that may not have reached the store.
const PENDING: &str = " ?";

/// A mark; number 0: of an earlier build, which drew a word for each.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    word: String,
    number: u64,
}

#[derive(Debug)]
pub(super) struct Marks {
    data: PathBuf,
    store: PathBuf,
    /// Marks that have reached the store, the newest of each word; the last one was the last to reach it.
    reached: Vec<Mark>,
    /// Newer ones, that may not have.
    pending: Vec<Mark>,
    /// What this process drew last.
    drawn: Option<Mark>,
    /// The directory that was marked last.
    inode: Option<Inode>,
}

impl Marks {
    pub(super) fn read(store: &Path, data_dir: &Path) -> Result<Self, IdentityError> {
        let (data, store) = (data_dir.join("store-marks"), store.join(MARK));
        let text = text(&data)?.unwrap_or_default();
        let mut reached: Vec<&str> = text.lines().collect();
        let pending = reached.iter().rev().take_while(|line| line.ends_with(PENDING)).count();
        let pending = reached.split_off(reached.len() - pending);
        let marks =
            |lines: Vec<&str>| lines.into_iter().map(|line| Mark::read(line.trim_end_matches(PENDING))).collect();
        Ok(Self { data, store, reached: marks(reached), pending: marks(pending), drawn: None, inode: None })
    }

    /// Forgets the marks: they are of another store.
    pub(super) fn forget(&mut self) {
        self.reached.clear();
        self.pending.clear();
    }

    /// That the store in the directory `inode` is no older copy. In another directory than before, it gets a new mark.
    ///
    /// # Errors
    /// `Older`.
    pub(super) fn check(&mut self, inode: Inode, draw: Draw) -> Result<(), IdentityError> {
        let is_older = match text(&self.store)? {
            // One that is not known here is of another coordinator, or of a start that this data directory has forgotten.
            Some(mark) => self.is_replaced(&Mark::read(mark.trim())),
            None => !self.reached.is_empty(),
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

    /// Whether another mark has reached the store since it had `mark`.
    fn is_replaced(&self, mark: &Mark) -> bool {
        let Some((newest, before)) = self.reached.split_last() else { return false };
        newest.is_after(mark) || before.iter().any(|known| known == mark || known.is_after(mark))
    }

    /// A store that cannot be written keeps the mark that it has.
    pub(super) fn renew(&mut self, draw: Draw) -> Result<(), IdentityError> {
        if let Some(replaced) = text(&self.store)?.map(|text| text.trim().to_owned())
            && !replaced.is_empty()
            && replaced.len() <= MARK_BYTES
            && replaced.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            let replaced = Mark::read(&replaced);
            if !self.reached.iter().chain(&self.pending).any(|known| *known == replaced || known.is_after(&replaced)) {
                self.reach(replaced);
            }
        }
        let mark = if let Some(Mark { word, number }) = &self.drawn {
            Mark { word: word.clone(), number: number + 1 }
        } else {
            let word = draw().map_err(|source| io_error("draw a mark for", &self.store, source))?;
            Mark { word, number: 1 }
        };
        self.drawn = Some(mark.clone());
        self.pending.retain(|before| !mark.is_after(before));
        self.pending.push(mark.clone());
        self.pending.drain(..self.pending.len().saturating_sub(MOST));
        self.reached.drain(..(self.reached.len() + self.pending.len()).saturating_sub(MOST));
        self.keep()?;
        let access = Access::of(self.store.parent().unwrap_or(Path::new(".")));
        match durable::write_atomic_in(&self.store, format!("{mark}\n").as_bytes(), access) {
            Ok(()) => {
                for mark in std::mem::take(&mut self.pending) {
                    self.reach(mark);
                }
                self.keep()
            }
            Err(error) => {
                warn!(mark = %self.store.display(), "the store gets no new mark: {error}");
                Ok(())
            }
        }
    }

    /// `mark` is the last that has reached the store.
    fn reach(&mut self, mark: Mark) {
        self.reached.retain(|before| !mark.is_after(before));
        self.reached.push(mark);
    }

    fn keep(&self) -> Result<(), IdentityError> {
        let reached = self.reached.iter().map(|mark| format!("{mark}\n"));
        let lines = reached.chain(self.pending.iter().map(|mark| format!("{mark}{PENDING}\n")));
        let written = durable::write_atomic(&self.data, lines.collect::<String>().as_bytes());
        written.map_err(|source| io_error("write", &self.data, source))
    }
}

impl Mark {
    /// From how it is written.
    fn read(text: &str) -> Self {
        let counted = text.rsplit_once('n').and_then(|(word, number)| {
            let mark = Self { word: word.to_owned(), number: number.parse().ok().filter(|number| *number > 0)? };
            (mark.to_string() == text).then_some(mark)
        });
        counted.unwrap_or_else(|| Self { word: text.to_owned(), number: 0 })
    }

    /// Whether it was drawn after `other`, by the same process.
    fn is_after(&self, other: &Self) -> bool {
        self.word == other.word && self.number > other.number
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { word, number: 0 } => f.write_str(word),
            Self { word, number } => write!(f, "{word}n{number}"),
        }
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
