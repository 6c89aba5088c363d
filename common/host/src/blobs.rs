//! The blob store: immutable files named by the blake3 digest of their contents, in a local or shared directory.
//!
//! ```text
//! DIR/ab/abcdef…(64)      a blob; complete from the moment that it has its name
//! DIR/tmp/…               being written
//! ```
//!
//! A name is given only to complete, synced contents, so a blob that is there is whole, unless the disk changed it: every
//! read is verified. Two writers of the same blob do no harm.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use lockstep_common::Digest;
use lockstep_common::manifest::Piece;
use rayon::prelude::*;

use crate::durable;

/// Large tensors are cut into pieces of this size: small enough to hash and write in parallel, large enough that their
/// number does not matter.
pub const PIECE_BYTES: usize = 8 << 20;

/// A blob that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("blob `{digest}` is missing from the store `{}`", dir.display())]
    Missing {
        /// The blob.
        digest: Digest,
        /// The store.
        dir: PathBuf,
    },
    /// Its length is not what the manifest says.
    #[error("blob `{digest}` is truncated: {found} bytes of {expected} in `{}`", path.display())]
    Truncated {
        /// The blob.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// Length in the manifest.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// Its contents changed.
    #[error("blob `{digest}` is corrupt: the contents of `{}` have the digest `{found}`", path.display())]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// What its contents hash to.
        found: Digest,
    },
    /// The disk refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A store in a directory.
#[derive(Debug)]
pub struct BlobStore {
    dir: PathBuf,
    /// Directories with new entries that [`BlobStore::sync`] has yet to make durable.
    unsynced: Mutex<Vec<PathBuf>>,
}

impl BlobStore {
    /// Opens the store at `dir`, and makes it if it is not there.
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        let tmp = dir.join("tmp");
        fs::create_dir_all(&tmp).map_err(|source| BlobError::Io { action: "make", path: tmp, source })?;
        Ok(Self { dir: dir.to_owned(), unsynced: Mutex::default() })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stores `bytes`. The contents are durable on return, the name after [`BlobStore::sync`].
    pub fn put(&self, bytes: &[u8]) -> Result<Piece, BlobError> {
        let digest = lockstep_common::Domain::Blob.digest(bytes);
        let piece = Piece { digest, bytes: bytes.len() as u64 };
        if self.has(&piece) {
            return Ok(piece);
        }
        let tmp = self.dir.join("tmp");
        let write = || -> io::Result<_> {
            let mut file = tempfile::Builder::new().tempfile_in(&tmp)?;
            file.write_all(bytes)?;
            Ok(file)
        };
        let path = self.path(&digest);
        self.keep(write().map_err(|source| BlobError::Io { action: "write", path, source })?, &piece)?;
        Ok(piece)
    }

    /// Stores what is written to it, bit by bit, however much it is.
    pub fn writer(&self) -> Result<BlobWriter<'_>, BlobError> {
        let tmp = self.dir.join("tmp");
        let file = tempfile::Builder::new().tempfile_in(&tmp);
        let file = file.map_err(|source| BlobError::Io { action: "write", path: tmp, source })?;
        Ok(BlobWriter { store: self, file, hasher: lockstep_common::Domain::Blob.hasher() })
    }

    /// Writes the blob `piece` where an earlier attempt left off; what that left is kept until the blob is whole.
    pub fn part(&self, piece: &Piece) -> Result<Part<'_>, BlobError> {
        let path = self.dir.join("tmp").join(format!("{}.part", piece.digest.to_hex()));
        let open = || -> io::Result<_> {
            let mut file = File::options().create(true).append(true).read(true).open(&path)?;
            file.lock()?;
            let mut hasher = lockstep_common::Domain::Blob.hasher();
            if file.metadata()?.len() > piece.bytes {
                file.set_len(0)?;
            }
            hasher.update_reader(&mut file)?;
            Ok((file, hasher))
        };
        let (file, hasher) = open().map_err(|source| BlobError::Io { action: "open", path: path.clone(), source })?;
        Ok(Part { store: self, piece: piece.clone(), path, file, hasher })
    }

    /// Gives a complete file its name, if it is not there yet.
    fn keep(&self, file: tempfile::NamedTempFile, piece: &Piece) -> Result<(), BlobError> {
        let path = self.path(&piece.digest);
        if self.has(piece) {
            return Ok(());
        }
        let io = |action| move |source, path: &Path| BlobError::Io { action, path: path.to_owned(), source };
        let parent = path.parent().expect("a blob's path has a directory");
        fs::create_dir_all(parent).map_err(|source| io("make")(source, parent))?;
        let persist = || -> io::Result<()> {
            file.as_file().sync_data()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        persist().map_err(|source| io("write")(source, &path))?;
        let mut unsynced = self.unsynced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !unsynced.iter().any(|dir| dir == parent) {
            unsynced.push(parent.to_owned());
        }
        Ok(())
    }

    /// Stores `bytes` as pieces of [`PIECE_BYTES`], in order. No bytes, no pieces.
    pub fn put_pieces(&self, bytes: &[u8]) -> Result<Vec<Piece>, BlobError> {
        bytes.chunks(PIECE_BYTES).map(|chunk| self.put(chunk)).collect()
    }

    /// Makes the names of everything put so far durable.
    pub fn sync(&self) -> Result<(), BlobError> {
        let dirs = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        if dirs.is_empty() {
            return Ok(());
        }
        for dir in dirs.iter().chain([&self.dir]) {
            durable::sync_dir(dir).map_err(|source| BlobError::Io { action: "sync", path: dir.clone(), source })?;
        }
        Ok(())
    }

    /// Reads and verifies a blob.
    pub fn get(&self, piece: &Piece) -> Result<Vec<u8>, BlobError> {
        let mut bytes = vec![0; piece.bytes as usize];
        self.read(piece, &mut bytes)?;
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
        parts.into_par_iter().try_for_each(|(piece, part)| self.read(piece, part))
    }

    /// Whether a blob is there, as long as it should be; its contents are not read.
    pub fn has(&self, piece: &Piece) -> bool {
        fs::metadata(self.path(&piece.digest)).is_ok_and(|metadata| metadata.len() == piece.bytes)
    }

    /// Reads a blob, whatever its size, to see that it is whole; where it lies.
    pub fn verify(&self, piece: &Piece) -> Result<PathBuf, BlobError> {
        let path = self.path(&piece.digest);
        let found = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { digest: piece.digest, dir: self.dir.clone() });
            }
            Err(source) => return Err(BlobError::Io { action: "read", path, source }),
        };
        if found != piece.bytes {
            return Err(BlobError::Truncated { digest: piece.digest, path, expected: piece.bytes, found });
        }
        let mut hasher = lockstep_common::Domain::Blob.hasher();
        let hashed = hasher.update_mmap_rayon(&path).map(|hasher| Digest::of(hasher));
        match hashed {
            Ok(found) if found == piece.digest => Ok(path),
            Ok(found) => Err(BlobError::Corrupt { digest: piece.digest, path, found }),
            Err(source) => Err(BlobError::Io { action: "read", path, source }),
        }
    }

    /// Where a blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_hex();
        self.dir.join(&name[..2]).join(name)
    }

    fn read(&self, piece: &Piece, into: &mut [u8]) -> Result<(), BlobError> {
        let path = self.path(&piece.digest);
        let io = |source| BlobError::Io { action: "read", path: path.clone(), source };
        let mut file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BlobError::Missing { digest: piece.digest, dir: self.dir.clone() },
            _ => io(source),
        })?;
        let found = file.metadata().map_err(io)?.len();
        if found != piece.bytes {
            return Err(BlobError::Truncated { digest: piece.digest, path, expected: piece.bytes, found });
        }
        file.read_exact(into).map_err(io)?;
        let found = lockstep_common::Domain::Blob.digest(into);
        if found == piece.digest { Ok(()) } else { Err(BlobError::Corrupt { digest: piece.digest, path, found }) }
    }
}

/// A blob that is being written. It has no name before [`BlobWriter::finish`], and leaves nothing without it.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a BlobStore,
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
}

impl BlobWriter<'_> {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.hasher.update(bytes);
        let path = self.file.path().to_owned();
        self.file.write_all(bytes).map_err(|source| BlobError::Io { action: "write", path, source })
    }

    /// Names it by its contents; durable after [`BlobStore::sync`].
    pub fn finish(self) -> Result<Piece, BlobError> {
        let piece = Piece { digest: Digest::of(&self.hasher), bytes: self.hasher.count() };
        self.store.keep(self.file, &piece)?;
        Ok(piece)
    }
}

/// A blob of which a part is there: one writer at a time.
#[derive(Debug)]
pub struct Part<'a> {
    store: &'a BlobStore,
    piece: Piece,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
}

impl Part<'_> {
    /// Bytes that are there.
    pub fn bytes(&self) -> u64 {
        self.hasher.count()
    }

    /// Adds the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|source| BlobError::Io { action: "write", path: self.path.clone(), source })
    }

    /// Gives the blob its name, if it is what it should be; else nothing of it is kept.
    pub fn finish(self) -> Result<(), BlobError> {
        let (found, expected) = (Digest::of(&self.hasher), self.piece.digest);
        if found != expected {
            // What is left of it would be in the way the next time.
            let _ = fs::remove_file(&self.path);
            return Err(BlobError::Corrupt { digest: expected, path: self.path, found });
        }
        let path = tempfile::TempPath::try_from_path(&self.path).map_err(|source| BlobError::Io {
            action: "name",
            path: self.path.clone(),
            source,
        })?;
        self.store.keep(tempfile::NamedTempFile::from_parts(self.file, path), &self.piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, BlobStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn what_is_put_is_got_whatever_its_size() {
        let (_dir, store) = store();
        for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let pieces = store.put_pieces(&bytes).unwrap();
            assert_eq!(pieces.len(), size.div_ceil(PIECE_BYTES));
            let mut back = vec![0; size];
            store.get_into(&pieces, &mut back).unwrap();
            assert!(back == bytes);
        }
        store.sync().unwrap();
    }

    #[test]
    fn a_flipped_bit_a_lost_tail_and_a_lost_blob_are_found() {
        let (_dir, store) = store();
        let piece = store.put(b"weights").unwrap();
        let path = store.path(&piece.digest);
        fs::write(&path, b"weighty").unwrap();
        assert!(matches!(store.get(&piece), Err(BlobError::Corrupt { .. })));
        fs::write(&path, b"weigh").unwrap();
        assert!(matches!(store.get(&piece), Err(BlobError::Truncated { expected: 7, found: 5, .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(store.get(&piece), Err(BlobError::Missing { .. })));
    }

    #[test]
    fn a_blob_that_comes_in_parts_goes_on_where_it_stopped_and_is_checked() {
        let (_dir, store) = store();
        let piece = Piece { digest: lockstep_common::Domain::Blob.digest(b"weights"), bytes: 7 };
        store.part(&piece).unwrap().write(b"wei").unwrap();
        let mut part = store.part(&piece).unwrap();
        assert_eq!(part.bytes(), 3);
        part.write(b"ghts").unwrap();
        part.finish().unwrap();
        assert_eq!(store.get(&piece).unwrap(), b"weights");
        assert_eq!(fs::read(store.verify(&piece).unwrap()).unwrap(), b"weights");
        fs::remove_file(store.path(&piece.digest)).unwrap();

        store.part(&piece).unwrap().write(b"wei").unwrap();
        let mut part = store.part(&piece).unwrap();
        part.write(b"ghty").unwrap();
        assert!(matches!(part.finish(), Err(BlobError::Corrupt { .. })));
        assert!(matches!(store.verify(&piece), Err(BlobError::Missing { .. })));
        assert_eq!(store.part(&piece).unwrap().bytes(), 0, "it begins anew");
        store.writer().unwrap().write(b"left alone").unwrap();
        assert_eq!(fs::read_dir(store.dir.join("tmp")).unwrap().count(), 1, "only the part");
    }

    #[test]
    fn a_truncated_blob_is_healed_by_the_next_put() {
        let (_dir, store) = store();
        let piece = store.put(b"weights").unwrap();
        fs::write(store.path(&piece.digest), b"we").unwrap();
        store.put(b"weights").unwrap();
        assert_eq!(store.get(&piece).unwrap(), b"weights");
    }
}
