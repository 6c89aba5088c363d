//! Blobs that are written bit by bit, from their beginning or from where an earlier attempt left off.

use std::fs::File;
use std::io::{self, Write as _};

use lockstep_common::Digest;
use lockstep_common::manifest::Piece;

use crate::directory::BlobStore;
use crate::error::BlobError;
use crate::layout::{PART, TMP};
use crate::unfinished::Unfinished;

/// A blob that is being written. It has no name before [`BlobWriter::finish`], and leaves nothing without it.
#[derive(Debug)]
pub struct BlobWriter {
    unfinished: Unfinished,
    hasher: blake3::Hasher,
}

/// A blob of which a part is there: one writer at a time.
#[derive(Debug)]
pub struct Part<'a> {
    store: &'a BlobStore,
    piece: Piece,
    name: String,
    file: File,
    hasher: blake3::Hasher,
}

impl BlobStore {
    /// Stores what is written to it, bit by bit, however much it is.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        let unfinished = self.tmp().and_then(Unfinished::new);
        let unfinished =
            unfinished.map_err(|source| BlobError::Io { action: "write", path: self.dir.join(TMP), source })?;
        Ok(BlobWriter { unfinished, hasher: lockstep_common::Domain::Blob.hasher() })
    }

    /// Writes the blob `piece` where an earlier attempt left off; what that left is kept until the blob is whole.
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
                // Whoever had it has finished or deleted it.
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
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.hasher.update(bytes);
        let written = self.unfinished.file.write_all(bytes);
        written.map_err(|source| BlobError::Io { action: "write", path: self.unfinished.path(), source })
    }

    /// Names it by its contents in `store`, whose writer it is; durable after [`BlobStore::sync`].
    pub fn finish(self, store: &BlobStore) -> Result<Piece, BlobError> {
        let piece = Piece { digest: Digest::of(&self.hasher), bytes: self.hasher.count() };
        store.keep(self.unfinished, &piece)?;
        Ok(piece)
    }
}

impl Part<'_> {
    /// Bytes that are there.
    pub fn bytes(&self) -> u64 {
        self.hasher.count()
    }

    /// Adds the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.hasher.update(bytes);
        let path = || self.store.dir.join(TMP).join(&self.name);
        self.file.write_all(bytes).map_err(|source| BlobError::Io { action: "write", path: path(), source })
    }

    /// Gives the blob its name, if it is what it should be; else nothing of it is kept.
    pub fn finish(self) -> Result<(), BlobError> {
        let path = self.store.dir.join(TMP).join(&self.name);
        let (found, expected) = (Digest::of(&self.hasher), self.piece.digest);
        let tmp = self.store.tmp();
        let tmp = tmp.map_err(|source| BlobError::Io { action: "name", path: path.clone(), source })?;
        // What is left of one that is not what it should be would be in the way the next time.
        let unfinished = Unfinished::of(tmp, self.name, self.file);
        if found != expected {
            return Err(BlobError::Corrupt { digest: expected, path, found });
        }
        self.store.keep(unfinished, &self.piece)
    }
}
