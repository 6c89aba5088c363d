//! The blob store: immutable files named by the blake3 digest of their contents, in a local or shared directory.
//!
//! ```text
//! DIR/ab/abcdef…(64)      a blob; complete as soon as it has its name
//! DIR/tmp/…               files that are being written; their writers lock them
//! ```
//!
//! Only complete, synced contents get a name, so an existing blob is complete unless the disk changed it. Every read verifies the
//! blob. A write that finds an existing blob verifies it, too, and replaces it if it is damaged. Two writers of the same blob do no
//! harm.
//!
//! Others may write to the store, so no link in it is followed, and no open waits: [`lockstep_host::plain`].
//!
//! A name may exist without being durable, if its writer crashed before it synced the directory. So a write that finds an existing
//! blob syncs the directory, too.

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

/// Size of the pieces that large tensors are split into. Pieces are small enough to hash and write in parallel, and large enough
/// that their number does not matter.
pub const PIECE_BYTES: usize = 8 << 20;

/// Blobs of at least this size leave the page cache when they are durable. They are rarely read soon, and training needs the memory.
/// The next blob can reuse that memory, which on a virtual machine is much faster than getting new memory.
pub(crate) const UNCACHED_BYTES: u64 = 1 << 20;

/// A blob store in a directory.
#[derive(Debug)]
pub struct BlobStore {
    pub(crate) dir: PathBuf,
    pub(crate) access: Access,
    unsynced: Mutex<Unsynced>,
}

/// Directories with new entries that [`BlobStore::sync`] must make durable.
#[derive(Debug, Default)]
struct Unsynced {
    /// The number of the last entry of each directory. A sync does not cover entries that were added while it ran.
    dirs: BTreeMap<PathBuf, u64>,
    entries: u64,
}

impl BlobStore {
    /// Opens the store at `dir` and creates it if it does not exist. Only the owner of the store calls this; others call
    /// [`BlobStore::existing`].
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

    /// Opens the store at `dir`, which its owner has created. It is not created here: on a machine where the store is not mounted,
    /// blobs would go into a directory that no other machine can read.
    ///
    /// # Errors
    /// `NoStore` if there is no store; `Io` if its directory for unfinished files is a link.
    pub fn existing(dir: &Path) -> Result<Self, BlobError> {
        match Dir::open(dir).and_then(|dir| dir.dir(TMP)) {
            Ok(_) => Ok(Self { dir: dir.to_owned(), access: Access::of(dir), unsynced: Mutex::default() }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(BlobError::NoStore { dir: dir.to_owned() })
            }
            Err(source) => Err(BlobError::Io { action: "use", path: dir.join(TMP), source }),
        }
    }

    /// Deletes unfinished files of writers that no longer exist: files that are not locked and did not change for `age`. Returns their
    /// number.
    pub fn sweep(&self, age: Duration) -> Result<usize, BlobError> {
        let swept = self.tmp().and_then(|tmp| left::sweep(&tmp, age));
        swept.map_err(|source| BlobError::Io { action: "clean up", path: self.dir.join(TMP), source })
    }

    /// Opens the directory of unfinished files.
    pub(crate) fn tmp(&self) -> io::Result<Dir> {
        Dir::open(&self.dir)?.dir(TMP)
    }

    /// A second handle of the same store, for another thread. Its [`BlobStore::sync`] covers only blobs that were put through it.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { dir: self.dir.clone(), access: self.access, unsynced: Mutex::default() }
    }

    /// Stores `bytes`, unless the store has this blob. The contents are durable on return, the name after [`BlobStore::sync`].
    pub fn put(&self, bytes: &[u8]) -> Result<Piece, BlobError> {
        self.put_trusting(bytes, true)
    }

    /// As [`BlobStore::put`], but always writes a new file. For use after a failed sync: the system may then report data as written
    /// that it has lost.
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

    /// Renames a complete file to its blob's name, unless an undamaged blob of this name exists.
    pub(crate) fn keep(&self, unfinished: Unfinished, piece: &Piece) -> Result<(), BlobError> {
        if self.verify(piece).is_ok() {
            self.note(piece);
            return Ok(());
        }
        self.name(unfinished, piece)
    }

    /// Renames a complete file to its blob's name and replaces an existing file.
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
                // This is advice only: if it fails, the page cache keeps the blob.
                rustix::fs::fadvise(&unfinished.file, 0, None, rustix::fs::Advice::DontNeed).ok();
            }
            unfinished.persist(&parent, &name)
        };
        persist().map_err(io("write", &path))?;
        progress::advance();
        self.note(piece);
        Ok(())
    }

    /// Notes that the directory of `piece` must be synced.
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

    /// Makes the names of all blobs durable that were put or found through this handle, also by other threads. After a failure, the
    /// next call syncs all of them again.
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

    /// Whether the store has an undamaged `piece`. Reads the whole blob and makes its name durable. False for a blob that cannot be
    /// read: the caller should put it again.
    pub fn has_durably(&self, piece: &Piece) -> Result<bool, BlobError> {
        let there = self.verify(piece).is_ok();
        if there {
            self.note(piece);
            self.sync()?;
        }
        Ok(there)
    }

    /// The blob with this digest and its present length; `None` if it does not exist. The contents are not read.
    pub fn find(&self, digest: Digest) -> Option<Piece> {
        let bytes = std::fs::metadata(self.local_path(&digest)).ok()?.len();
        Some(Piece { digest, bytes })
    }

    /// Checks that a blob exists and has the right size. It opens the file, because a network file system may answer a mere query for
    /// existence from its cache.
    pub fn check(&self, piece: &Piece) -> Result<(), BlobError> {
        self.opened(piece).map(drop)
    }

    /// Reads and verifies a blob.
    pub fn get(&self, piece: &Piece) -> Result<Vec<u8>, BlobError> {
        // The file is opened first, so that no memory is allocated for a missing blob.
        let file = self.opened(piece)?;
        let mut bytes = vec![0; piece.bytes as usize];
        self.read(file, piece, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads and verifies `pieces` on all cores and writes them to `into`, one after another.
    ///
    /// # Panics
    /// If `into` is not exactly as long as all pieces together.
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

    /// Whether a blob exists and has the right size. The contents are not read.
    pub fn has(&self, piece: &Piece) -> bool {
        self.opened(piece).is_ok()
    }

    /// Reads a blob of any size and verifies its digest, with constant memory.
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

    /// The path of a blob on this machine, whether it exists or not: for users' programs and other tools that open files by path.
    /// Nothing is verified.
    pub fn local_path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_hex();
        self.dir.join(&name[..2]).join(name)
    }

    /// Opens the file of a blob and checks its size. The contents are not verified.
    ///
    /// # Errors
    /// `Missing` if there is no such file, `Truncated` if its size is wrong.
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
