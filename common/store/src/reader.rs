//! Reads a blob in chunks and verifies it at the end.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Take};
use std::path::PathBuf;

use lockstep_common::manifest::Piece;
use lockstep_common::{Digest, Domain};

use crate::directory::BlobStore;
use crate::error::BlobError;

/// A blob that is read and hashed in chunks.
#[derive(Debug)]
pub struct BlobReader {
    piece: Piece,
    path: PathBuf,
    file: Take<File>,
    /// `None` if the reader did not begin at offset 0: then only a caller who has the bytes before can verify the blob.
    hasher: Option<blake3::Hasher>,
}

impl BlobStore {
    /// A reader of the blob that begins at `offset` bytes.
    pub fn reader(&self, piece: Piece, offset: u64) -> Result<BlobReader, BlobError> {
        let path = self.local_path(&piece.digest);
        let mut file = self.opened(&piece)?;
        let sought = file.seek(SeekFrom::Start(offset));
        sought.map_err(|source| BlobError::Io { action: "read", path: path.clone(), source })?;
        let file = file.take(piece.bytes.saturating_sub(offset));
        let hasher = (offset == 0).then(|| Domain::Blob.hasher());
        Ok(BlobReader { piece, path, file, hasher })
    }
}

impl BlobReader {
    /// The next bytes, at most `most`; empty at the end.
    pub fn next(&mut self, most: usize) -> Result<Vec<u8>, BlobError> {
        let mut data = Vec::with_capacity(most);
        let read = (&mut self.file).take(most as u64).read_to_end(&mut data);
        read.map_err(|source| BlobError::Io { action: "read", path: self.path.clone(), source })?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        Ok(data)
    }

    /// Verifies the digest, after the blob was read to its end.
    ///
    /// # Errors
    /// `Corrupt` if the digest is wrong. A blob that was not read from offset 0 is not verified.
    pub fn end(self) -> Result<(), BlobError> {
        let Self { piece: Piece { digest, .. }, path, hasher, .. } = self;
        match hasher.map(|hasher| Digest::of(&hasher)) {
            Some(found) if found != digest => Err(BlobError::Corrupt { digest, path, found }),
            _ => Ok(()),
        }
    }
}
