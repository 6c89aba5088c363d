//! Marks, which detect an older copy of the store.
//!
//! ```text
//! STORE/store-mark     the newest mark
//! DATA/store-marks     marks that this coordinator wrote or replaced, one per line; ` ?` follows a mark that may not be in the store
//! ```
//!
//! A copy of a store has the same id as the store. So the coordinator writes a new mark into the store at each start, whenever the store's
//! directory has changed, and before it commits the last checkpoint of a run. An older copy has a mark that was replaced since, and
//! `DATA/store-marks` lists that mark. When the coordinator replaces a mark of another coordinator, it records that one, too.
//!
//! Each process draws one random word and numbers its marks: `WORDn1`, `WORDn2`. The file keeps only the newest mark of each word,
//! which implies the earlier ones, so that it does not grow with each mark.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_host::access::Access;
use lockstep_host::{durable, plain};
use lockstep_store::shared::MARK;
use tracing::warn;

use super::error::IdentityError;

/// Source of random ids and of the words of marks.
pub(super) type Draw = fn() -> io::Result<String>;

/// Identifies a directory independently of its path: device and inode number.
pub(super) type Inode = (u64, u64);

/// Number of words of which marks are kept; the oldest are dropped.
const MOST: usize = 10_000;

/// Maximum length, in bytes, of a recorded mark of another coordinator.
const MARK_BYTES: usize = 64;

/// Maximum length of a file of marks, in bytes.
const FILE_BYTES: u64 = 4 << 20;

/// Suffix of a mark in `DATA/store-marks` that may not be in the store.
const PENDING: &str = " ?";

/// A mark. Number 0: written by an earlier version, which drew a word for each mark.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    word: String,
    number: u64,
}

#[derive(Debug)]
pub(super) struct Marks {
    data: PathBuf,
    store: PathBuf,
    /// Marks that were written into the store, the newest of each word, in the order of writing.
    reached: Vec<Mark>,
    /// Newer marks, which may not be in the store.
    pending: Vec<Mark>,
    /// The last mark of this process.
    drawn: Option<Mark>,
    /// The store's directory when the last mark was written.
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

    /// Drops all marks, because they belong to another store.
    pub(super) fn forget(&mut self) {
        self.reached.clear();
        self.pending.clear();
    }

    /// Checks that the store in the directory `inode` is not an older copy. If the directory has changed, writes a new mark.
    ///
    /// # Errors
    /// `Older` if the store's mark was replaced, or if the store has no mark although one was written; `Io`.
    pub(super) fn check(&mut self, inode: Inode, draw: Draw) -> Result<(), IdentityError> {
        let is_older = match text(&self.store)? {
            // An unknown mark was written by another coordinator, or by a start after this data directory was copied.
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

    /// Whether a later mark was written into the store after `mark`.
    fn is_replaced(&self, mark: &Mark) -> bool {
        let Some((newest, before)) = self.reached.split_last() else { return false };
        newest.is_after(mark) || before.iter().any(|known| known == mark || known.is_after(mark))
    }

    /// Writes a new mark. A store that cannot be written keeps its old mark, and a warning is logged.
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
                warn!(mark = %self.store.display(), "cannot write a new mark, so copies of the store are not detected: {error}");
                Ok(())
            }
        }
    }

    /// Records `mark` as the last mark that was written into the store.
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
    /// Parses the text of a mark. A text of another form is a word with number 0.
    fn read(text: &str) -> Self {
        let counted = text.rsplit_once('n').and_then(|(word, number)| {
            let mark = Self { word: word.to_owned(), number: number.parse().ok().filter(|number| *number > 0)? };
            (mark.to_string() == text).then_some(mark)
        });
        counted.unwrap_or_else(|| Self { word: text.to_owned(), number: 0 })
    }

    /// Whether the same process wrote this mark after `other`.
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
