//! Opens and hashes data files. Each file is opened once, so that training reads the verified file, even if its path leads to another
//! file later.
//!
//! Small files are read into private memory and hashed there, so that no other program can change them. Large files stay on disk;
//! their readers map them into memory and watch them for changes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_common::{Digest, Domain};
use rustix::fs::OFlags;

use super::error::DataHashError;
use super::read::hash_read;
use super::stat_cache::Stamp;
use crate::progress;

/// The most bytes of data files that a process reads into memory, the smallest files first.
pub const IN_MEMORY_BYTES: u64 = 256 << 20;

/// Pointers of Git LFS are shorter than this, according to the specification.
const LFS_POINTER_BYTES: u64 = 1024;
/// The first bytes of a pointer of Git LFS.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Files up to this size are read at once, which is faster than in chunks.
const SMALL_BYTES: u64 = 64 << 10;

/// An open file whose contents were hashed.
#[derive(Clone, Debug)]
pub struct Opened {
    file: Arc<File>,
    memory: Option<Arc<Vec<u8>>>,
}

impl Opened {
    /// The open file. It stays the verified one, even if its path leads to another file later.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The contents of the file, if they were read into memory.
    pub fn memory(&self) -> Option<&Arc<Vec<u8>>> {
        self.memory.as_ref()
    }

    /// A path of the open file, `/proc/self/fd/N`. It is valid in this process while the file is open.
    pub fn path(&self) -> PathBuf {
        path_of(&self.file)
    }
}

/// A file with its digest.
#[derive(Debug)]
pub struct Hashed {
    /// The file, open since before it was hashed.
    pub opened: Opened,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the contents as a blob.
    pub digest: Digest,
    /// Size and times of the file; they did not change while it was read.
    pub stamp: Stamp,
}

/// Opens the file at `path` and hashes it. If the file has exactly `in_memory` bytes, its contents are read into memory and kept.
///
/// # Errors
/// `Missing`, `NotAFile`, `Io`; `Empty` unless `may_be_empty`; `LfsPointer`; `Changing` if size or times changed while it was read.
pub fn open(path: &Path, may_be_empty: bool, in_memory: Option<u64>) -> Result<Hashed, DataHashError> {
    let path = path.to_owned();
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataHashError::Missing { path: path.clone() },
        _ => DataHashError::Io { path: path.clone(), source },
    };
    // This is checked before the file is opened, because opening a pipe would wait for a writer.
    if !fs::metadata(&path).map_err(io)?.is_file() {
        return Err(DataHashError::NotAFile { path });
    }
    // NONBLOCK, because the file may have been replaced by a pipe meanwhile.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(DataHashError::NotAFile { path });
    }
    let (bytes, stamp) = (metadata.len(), Stamp::of(&metadata));
    if bytes == 0 && !may_be_empty {
        return Err(DataHashError::Empty { path });
    }
    let mut hasher = Domain::Blob.hasher();
    let kept = in_memory == Some(bytes);
    let memory = if kept || bytes <= SMALL_BYTES {
        let contents = whole(&file, bytes).map_err(io)?;
        if bytes < LFS_POINTER_BYTES && contents.starts_with(LFS_POINTER) {
            return Err(DataHashError::LfsPointer { path });
        }
        hasher.update_rayon(&contents);
        progress::advance();
        kept.then(|| Arc::new(contents))
    } else {
        hash_read(&file, &mut hasher).map_err(io)?;
        None
    };
    if file.metadata().map_or(true, |now| Stamp::of(&now) != stamp) || hasher.count() != bytes {
        return Err(DataHashError::Changing { path });
    }
    let digest = Digest::of(&hasher);
    Ok(Hashed { opened: Opened { file: Arc::new(file), memory }, bytes, digest, stamp })
}

/// The contents of `file`, which should have `bytes` bytes; at most one byte more.
fn whole(file: &File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::with_capacity(bytes as usize + 1);
    file.take(bytes + 1).read_to_end(&mut contents)?;
    Ok(contents)
}

fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::super::read::CHUNK_BYTES;
    use super::*;

    #[test]
    fn what_was_opened_stays_what_was_hashed_whatever_its_path_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, large) = (dir.path().join("a"), vec![7; SMALL_BYTES as usize + 1]);
        fs::write(&path, &large).unwrap();
        let (memory, file) = (open(&path, false, Some(large.len() as u64)).unwrap(), open(&path, false, None).unwrap());
        assert_eq!((memory.digest, memory.bytes), (Domain::Blob.digest(&large), large.len() as u64));
        assert_eq!((file.digest, file.stamp), (memory.digest, memory.stamp));
        fs::write(dir.path().join("b"), b"other").unwrap();
        fs::rename(dir.path().join("b"), &path).unwrap();
        assert_eq!(fs::read(file.opened.path()).unwrap(), large);
        assert_eq!(memory.opened.memory().map(|memory| memory.as_slice()), Some(large.as_slice()));
        let mut hasher = Domain::Blob.hasher();
        hash_read(file.opened.file(), &mut hasher).unwrap();
        assert_eq!(Digest::of(&hasher), file.digest);
    }

    #[test]
    fn an_onlooker_sees_that_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let small = SMALL_BYTES as usize;
        for (bytes, in_memory, parts) in [(4, false, 1), (2 * small, true, 1), (3 * CHUNK_BYTES, false, 3)] {
            fs::write(&path, vec![7; bytes]).unwrap();
            let before = progress::seen().count;
            open(&path, false, in_memory.then_some(bytes as u64)).unwrap();
            let after = progress::seen().count;
            assert!(after >= before + parts, "{bytes} bytes: {before}, then {after}");
        }
    }

    #[test]
    fn only_a_file_of_the_expected_size_is_read_into_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"abcd").unwrap();
        let hashed = open(&path, false, Some(3)).unwrap();
        assert!(hashed.opened.memory().is_none() && hashed.bytes == 4);
        assert_eq!(hashed.digest, Domain::Blob.digest(b"abcd"));
    }
}
