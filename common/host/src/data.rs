//! Digests of data files, and the check that a local copy is the same data.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_common::Digest;
use lockstep_common::manifest::DataFile;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataHashError {
    /// No such file.
    #[error("data file `{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No bytes in it.
    #[error("data file `{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a device, a socket.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Other contents than when the run was submitted.
    #[error("data file `{}` has changed since the run was submitted: expected {expected_bytes} bytes with digest `{expected}`, found {found_bytes} bytes with digest `{found}`", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Digest at submit.
        expected: Digest,
        /// Size at submit.
        expected_bytes: u64,
        /// Digest now.
        found: Digest,
        /// Size now.
        found_bytes: u64,
    },
    /// It cannot be read.
    #[error("cannot read data file `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Hashes `paths`, each relative to `base_dir`, memory-mapped and on all cores.
pub fn hash_files(base_dir: &Path, paths: &[&str]) -> Result<Vec<DataFile>, DataHashError> {
    paths.iter().map(|path| hash_file(base_dir, path)).collect()
}

/// Checks that every file is what it was when `files` were hashed.
pub fn verify(base_dir: &Path, files: &[DataFile]) -> Result<(), DataHashError> {
    for file in files {
        let now = hash_file(base_dir, &file.path)?;
        if now.digest != file.digest {
            return Err(DataHashError::Changed {
                path: base_dir.join(&file.path),
                expected: file.digest,
                expected_bytes: file.bytes,
                found: now.digest,
                found_bytes: now.bytes,
            });
        }
    }
    Ok(())
}

fn hash_file(base_dir: &Path, relative: &str) -> Result<DataFile, DataHashError> {
    let path = base_dir.join(relative);
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataHashError::Missing { path: path.clone() },
        _ => DataHashError::Io { path: path.clone(), source },
    };
    let metadata = File::open(&path).and_then(|file| file.metadata()).map_err(io)?;
    if !metadata.is_file() {
        return Err(DataHashError::NotAFile { path });
    }
    if metadata.len() == 0 {
        return Err(DataHashError::Empty { path });
    }
    let mut hasher = lockstep_common::Domain::Blob.hasher();
    hasher.update_mmap_rayon(&path).map_err(io)?;
    Ok(DataFile { path: relative.to_owned(), bytes: hasher.count(), digest: Digest::of(&hasher) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_missing_and_empty_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abc").unwrap();
        let files = hash_files(dir.path(), &["a"]).unwrap();
        assert_eq!(files[0].digest.to_hex(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        verify(dir.path(), &files).unwrap();
        std::fs::write(dir.path().join("a"), b"abd").unwrap();
        let error = verify(dir.path(), &files).unwrap_err().to_string();
        assert!(error.contains("expected 3 bytes with digest `6437b3ac") && error.contains("found 3 bytes"), "{error}");
        std::fs::write(dir.path().join("a"), b"").unwrap();
        assert!(matches!(verify(dir.path(), &files), Err(DataHashError::Empty { .. })));
        assert!(matches!(hash_files(dir.path(), &["b"]), Err(DataHashError::Missing { .. })));
        assert!(matches!(hash_files(dir.path(), &["."]), Err(DataHashError::NotAFile { .. })));
    }
}
