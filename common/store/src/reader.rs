//! A blob that is read bit by bit, and verified at its end.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Take};
use std::path::PathBuf;

use lockstep_common::manifest::Piece;
use lockstep_common::{Digest, Domain};

use crate::directory::BlobStore;
use crate::error::BlobError;

/// A blob that is read and hashed bit by bit.
#[derive(Debug)]
pub struct BlobReader {
    piece: Piece,
    path: PathBuf,
    file: Take<File>,
    /// None for one that is not read from its beginning: then only who has what lies before sees whether it is whole.
    hasher: Option<blake3::Hasher>,
}

impl BlobStore {
    /// Reads the blob from `offset` (bytes) on.
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
    /// The next bytes, at most `most`; none at the end.
    pub fn next(&mut self, most: usize) -> Result<Vec<u8>, BlobError> {
        let mut data = Vec::with_capacity(most);
        let read = (&mut self.file).take(most as u64).read_to_end(&mut data);
        read.map_err(|source| BlobError::Io { action: "read", path: self.path.clone(), source })?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        Ok(data)
    }

    /// Whether all that was read is what it should be.
    ///
    /// # Errors
    /// `Corrupt`, for a blob that was read from its beginning.
    pub fn end(self) -> Result<(), BlobError> {
        let Self { piece: Piece { digest, .. }, path, hasher, .. } = self;
        match hasher.map(|hasher| Digest::of(&hasher)) {
            Some(found) if found != digest => Err(BlobError::Corrupt { digest, path, found }),
            _ => Ok(()),
        }
    }
}
