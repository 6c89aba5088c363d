//! Writes blobs in chunks, from their beginning or from the end of an earlier, interrupted attempt.

use std::fs::File;
use std::io::{self, Write as _};

use lockstep_common::Digest;
use lockstep_common::manifest::Piece;

use crate::directory::BlobStore;
use crate::error::BlobError;
use crate::layout::{PART, TMP};
use crate::unfinished::Unfinished;

/// A blob that is being written. [`BlobWriter::finish`] gives it its name; dropping it without `finish` deletes the file.
#[derive(Debug)]
pub struct BlobWriter {
    unfinished: Unfinished,
    hasher: blake3::Hasher,
}

/// A partial blob of known digest, which an interrupted attempt can continue. One writer at a time holds its lock.
#[derive(Debug)]
pub struct Part<'a> {
    store: &'a BlobStore,
    piece: Piece,
    name: String,
    file: File,
    hasher: blake3::Hasher,
}

impl BlobStore {
    /// A writer for a blob of any size and yet unknown digest.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        let unfinished = self.tmp().and_then(Unfinished::new);
        let unfinished =
            unfinished.map_err(|source| BlobError::Io { action: "write", path: self.dir.join(TMP), source })?;
        Ok(BlobWriter { unfinished, hasher: lockstep_common::Domain::Blob.hasher() })
    }

    /// A writer for the blob `piece` that continues where an earlier attempt stopped. If the writer is dropped, its bytes stay for the
    /// next attempt. Waits while another writer has the same blob.
    pub fn part(&self, piece: &Piece) -> Result<Part<'_>, BlobError> {
        let name = format!("{}{PART}", piece.digest.to_hex());
        let open = || -> io::Result<_> {
            let tmp = self.tmp()?;
            let open = || -> io::Result<File> {
                let file = tmp.append(&name)?;
                file.lock()?;
                Ok(file)
            };
            let mut file = open()?;
            while !tmp.has(&file, &name)? {
                // The writer that held the lock has renamed or deleted the file.
                file = open()?;
            }
            if file.metadata()?.len() == 0 {
                self.access.give(&file)?;
            }
            let mut hasher = lockstep_common::Domain::Blob.hasher();
            if file.metadata()?.len() > piece.bytes {
                file.set_len(0)?;
            }
            hasher.update_reader(&mut file)?;
            Ok((file, hasher))
        };
        let (file, hasher) =
            open().map_err(|source| BlobError::Io { action: "open", path: self.dir.join(TMP).join(&name), source })?;
        Ok(Part { store: self, piece: piece.clone(), name, file, hasher })
    }
}

impl BlobWriter {
    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.hasher.update(bytes);
        let written = self.unfinished.file.write_all(bytes);
        written.map_err(|source| BlobError::Io { action: "write", path: self.unfinished.path(), source })
    }

    /// Gives the blob its name. `store` must be the store that made this writer. The name is durable after [`BlobStore::sync`].
    pub fn finish(self, store: &BlobStore) -> Result<Piece, BlobError> {
        let piece = Piece { digest: Digest::of(&self.hasher), bytes: self.hasher.count() };
        store.keep(self.unfinished, &piece)?;
        Ok(piece)
    }
}

impl Part<'_> {
    /// Number of bytes written so far, by this attempt and earlier ones.
    pub fn bytes(&self) -> u64 {
        self.hasher.count()
    }

    /// Appends the next `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.hasher.update(bytes);
        let path = || self.store.dir.join(TMP).join(&self.name);
        self.file.write_all(bytes).map_err(|source| BlobError::Io { action: "write", path: path(), source })
    }

    /// Verifies the digest and gives the blob its name.
    ///
    /// # Errors
    /// `Corrupt` if the digest is wrong. The partial blob is deleted then.
    pub fn finish(self) -> Result<(), BlobError> {
        let path = self.store.dir.join(TMP).join(&self.name);
        let (found, expected) = (Digest::of(&self.hasher), self.piece.digest);
        let tmp = self.store.tmp();
        let tmp = tmp.map_err(|source| BlobError::Io { action: "rename", path: path.clone(), source })?;
        // Dropping `unfinished` deletes the file: the next attempt could not continue corrupt bytes.
        let unfinished = Unfinished::of(tmp, self.name, self.file);
        if found != expected {
            return Err(BlobError::Corrupt { digest: expected, path, found });
        }
        self.store.keep(unfinished, &self.piece)
    }
}
