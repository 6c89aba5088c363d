//! The blob store: immutable files named by the blake3 digest of their contents, in a local or shared directory.
//!
//! ```text
//! DIR/ab/abcdef…(64)      a blob; complete from the moment that it has its name
//! DIR/tmp/…               being written, and locked meanwhile
//! ```
//!
//! A name is given only to complete, synced contents, so a blob that is there is whole, unless the disk changed it: every
//! read is verified, and so is a blob that is found where one is to be put; a damaged one is written again. Two writers of the
//! same blob do no harm.
//!
//! Others may write to the store, so nothing in it is followed or waited for: [`lockstep_host::plain`].
//!
//! A name may be there and not be durable: its writer crashed before it synced the directory. So whoever finds a blob where
//! it wants to put one syncs that directory, too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use lockstep_common::Digest;
use lockstep_common::manifest::Piece;
use rayon::prelude::*;

use lockstep_host::access::Access;
use lockstep_host::data::hash_read;
use lockstep_host::plain::Dir;
use lockstep_host::{durable, progress};

use crate::error::BlobError;
use crate::layout::TMP;
use crate::unfinished::Unfinished;
use crate::{contents, left};

/// Large tensors are cut into pieces of this size: small enough to hash and write in parallel, large enough that their
/// number does not matter.
pub const PIECE_BYTES: usize = 8 << 20;

/// Blobs of at least so many bytes leave the system's memory when they are durable: hardly one is read soon, memory that training
/// needs is not taken for it, and the next one gets memory that this machine has, which on a virtual one is much faster.
pub(crate) const UNCACHED_BYTES: u64 = 1 << 20;

/// A store in a directory.
#[derive(Debug)]
pub struct BlobStore {
    pub(crate) dir: PathBuf,
    pub(crate) access: Access,
    unsynced: Mutex<Unsynced>,
}

/// Directories with entries that [`BlobStore::sync`] has yet to make durable.
#[derive(Debug, Default)]
struct Unsynced {
    /// By directory, the number of its last entry: one that came during a sync is not covered by it.
    dirs: BTreeMap<PathBuf, u64>,
    entries: u64,
}

impl BlobStore {
    /// Opens the store at `dir`, and makes it if it is not there: for who owns it. See [`BlobStore::existing`].
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        let access = Access::of(dir);
        let make = || -> io::Result<()> {
            durable::make_private_dir(dir)?;
            let dir = Dir::open(dir)?;
            if access.make_dir(&dir, TMP)?.1 {
                dir.itself()?.sync_all()?;
            }
            Ok(())
        };
        make().map_err(|source| BlobError::Io { action: "make", path: dir.join(TMP), source })?;
        Ok(Self { dir: dir.to_owned(), access, unsynced: Mutex::default() })
    }

    /// Opens the store at `dir`, which somebody else has made. A directory that is made here would take blobs that nobody
    /// else sees.
    ///
    /// # Errors
    /// `NoStore` if there is none; `Io` if its directory for unfinished files is a link.
    pub fn existing(dir: &Path) -> Result<Self, BlobError> {
        match Dir::open(dir).and_then(|dir| dir.dir(TMP)) {
            Ok(_) => Ok(Self { dir: dir.to_owned(), access: Access::of(dir), unsynced: Mutex::default() }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(BlobError::NoStore { dir: dir.to_owned() })
            }
            Err(source) => Err(BlobError::Io { action: "use", path: dir.join(TMP), source }),
        }
    }

    /// Deletes what writers that are gone have left half written: files without a change for `age` that nobody holds. Gives their
    /// number.
    pub fn sweep(&self, age: Duration) -> Result<usize, BlobError> {
        let swept = self.tmp().and_then(|tmp| left::sweep(&tmp, age));
        swept.map_err(|source| BlobError::Io { action: "look through", path: self.dir.join(TMP), source })
    }

    /// The directory of what is being written, as it is now.
    pub(crate) fn tmp(&self) -> io::Result<Dir> {
        Dir::open(&self.dir)?.dir(TMP)
    }

    /// The same directory for another thread, which makes durable what itself has put.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { dir: self.dir.clone(), access: self.access, unsynced: Mutex::default() }
    }

    /// Stores `bytes`. The contents are durable on return, the name after [`BlobStore::sync`].
    pub fn put(&self, bytes: &[u8]) -> Result<Piece, BlobError> {
        self.put_trusting(bytes, true)
    }

    /// As [`BlobStore::put`], but always into a new file: after a failed sync a file, or a directory's entries, may be reported
    /// as written and be lost.
    pub fn put_anew(&self, bytes: &[u8]) -> Result<Piece, BlobError> {
        self.put_trusting(bytes, false)
    }

    pub(crate) fn put_trusting(&self, bytes: &[u8], found: bool) -> Result<Piece, BlobError> {
        let digest = lockstep_common::Domain::Blob.digest(bytes);
        let piece = Piece { digest, bytes: bytes.len() as u64 };
        if found && self.opened(&piece).is_ok_and(|mut file| contents::are(&mut file, bytes)) {
            progress::advance();
            self.note(&piece);
            return Ok(piece);
        }
        let write = || -> io::Result<_> {
            let mut unfinished = Unfinished::new(self.tmp()?)?;
            unfinished.file.write_all(bytes)?;
            Ok(unfinished)
        };
        let path = self.local_path(&digest);
        self.name(write().map_err(|source| BlobError::Io { action: "write", path, source })?, &piece)?;
        Ok(piece)
    }

    /// Gives a complete file its name, if no whole one has it yet.
    pub(crate) fn keep(&self, unfinished: Unfinished, piece: &Piece) -> Result<(), BlobError> {
        if self.verify(piece).is_ok() {
            self.note(piece);
            return Ok(());
        }
        self.name(unfinished, piece)
    }

    /// Gives a complete file its name, in the place of one that is there.
    fn name(&self, unfinished: Unfinished, piece: &Piece) -> Result<(), BlobError> {
        let path = self.local_path(&piece.digest);
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| BlobError::Io { action, path, source }
        };
        let name = piece.digest.to_hex();
        let parent = Dir::open(&self.dir).and_then(|dir| self.access.make_dir(&dir, &name[..2]));
        let (parent, _) = parent.map_err(io("make", path.parent().unwrap_or(&self.dir)))?;
        let persist = || -> io::Result<()> {
            self.access.give(&unfinished.file)?;
            unfinished.file.sync_data()?;
            if piece.bytes >= UNCACHED_BYTES {
                // Advice: a file system that cannot take it keeps the memory.
                rustix::fs::fadvise(&unfinished.file, 0, None, rustix::fs::Advice::DontNeed).ok();
            }
            unfinished.persist(&parent, &name)
        };
        persist().map_err(io("write", &path))?;
        progress::advance();
        self.note(piece);
        Ok(())
    }

    /// The directory of a blob is to be synced.
    fn note(&self, piece: &Piece) {
        if let Some(dir) = self.local_path(&piece.digest).parent() {
            let mut unsynced = self.unsynced();
            unsynced.entries += 1;
            let entry = unsynced.entries;
            unsynced.dirs.insert(dir.to_owned(), entry);
        }
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes the names of everything put or found so far durable, also of what another thread put. After a failure all of them
    /// are still to be synced.
    pub fn sync(&self) -> Result<(), BlobError> {
        let dirs = self.unsynced().dirs.clone();
        if dirs.is_empty() {
            return Ok(());
        }
        for dir in dirs.keys().chain([&self.dir]) {
            durable::sync_dir(dir).map_err(|source| BlobError::Io { action: "sync", path: dir.clone(), source })?;
        }
        self.unsynced().dirs.retain(|dir, entry| dirs.get(dir).is_none_or(|synced| synced < entry));
        Ok(())
    }

    /// Whether a blob is there and whole, which is read; its name is durable then. One that cannot be read is not whole: it is
    /// to be put again.
    pub fn has_durably(&self, piece: &Piece) -> Result<bool, BlobError> {
        let there = self.verify(piece).is_ok();
        if there {
            self.note(piece);
            self.sync()?;
        }
        Ok(there)
    }

    /// The blob with this digest, as long as it is; none if it is not there.
    pub fn find(&self, digest: Digest) -> Option<Piece> {
        let bytes = std::fs::metadata(self.local_path(&digest)).ok()?.len();
        Some(Piece { digest, bytes })
    }

    /// Opens a blob and compares its size. The system may answer for a file's existence from memory; an open asks a file system
    /// over the network.
    pub fn check(&self, piece: &Piece) -> Result<(), BlobError> {
        self.opened(piece).map(drop)
    }

    /// Reads and verifies a blob.
    pub fn get(&self, piece: &Piece) -> Result<Vec<u8>, BlobError> {
        // Before memory is taken for what may not be there.
        let file = self.opened(piece)?;
        let mut bytes = vec![0; piece.bytes as usize];
        self.read(file, piece, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads and verifies consecutive pieces into `into`, which is as long as all of them, on all cores.
    pub fn get_into(&self, pieces: &[Piece], into: &mut [u8]) -> Result<(), BlobError> {
        let mut parts = Vec::with_capacity(pieces.len());
        let mut rest = into;
        for piece in pieces {
            let (part, after) = rest.split_at_mut(piece.bytes as usize);
            parts.push((piece, part));
            rest = after;
        }
        assert!(rest.is_empty(), "the caller sized `into` by the pieces");
        parts.into_par_iter().try_for_each(|(piece, part)| self.read(self.opened(piece)?, piece, part))
    }

    /// Whether a blob is there, as long as it should be; its contents are not read.
    pub fn has(&self, piece: &Piece) -> bool {
        self.opened(piece).is_ok()
    }

    /// Reads a blob, whatever its size, to see that it is whole.
    pub fn verify(&self, piece: &Piece) -> Result<(), BlobError> {
        let path = self.local_path(&piece.digest);
        let file = self.opened(piece)?;
        let mut hasher = lockstep_common::Domain::Blob.hasher();
        match hash_read(&file, &mut hasher).map(|()| Digest::of(&hasher)) {
            Ok(found) if found == piece.digest => Ok(()),
            Ok(found) => Err(BlobError::Corrupt { digest: piece.digest, path, found }),
            Err(source) => Err(BlobError::Io { action: "read", path, source }),
        }
    }

    /// The file that a blob is or would be on this machine, for those who open data by a path: programs of users, other tools. Nothing
    /// is verified.
    pub fn local_path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_hex();
        self.dir.join(&name[..2]).join(name)
    }

    /// The file of a blob, as long as it should be. Its contents are not verified.
    pub fn opened(&self, piece: &Piece) -> Result<File, BlobError> {
        let path = self.local_path(&piece.digest);
        let io = |source| BlobError::Io { action: "read", path: path.clone(), source };
        let name = piece.digest.to_hex();
        let file = Dir::open(&self.dir).and_then(|dir| dir.dir(&name[..2])?.file(&name));
        let file = file.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BlobError::Missing { digest: piece.digest, dir: self.dir.clone() },
            _ => io(source),
        })?;
        let found = file.metadata().map_err(io)?.len();
        if found == piece.bytes {
            Ok(file)
        } else {
            Err(BlobError::Truncated { digest: piece.digest, path, expected: piece.bytes, found })
        }
    }

    fn read(&self, mut file: File, piece: &Piece, into: &mut [u8]) -> Result<(), BlobError> {
        let path = self.local_path(&piece.digest);
        file.read_exact(into).map_err(|source| BlobError::Io { action: "read", path: path.clone(), source })?;
        progress::advance();
        let found = lockstep_common::Domain::Blob.digest(into);
        if found == piece.digest { Ok(()) } else { Err(BlobError::Corrupt { digest: piece.digest, path, found }) }
    }
}
