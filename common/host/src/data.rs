//! Digests of data files, and the check that a local copy is the same data.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lockstep_common::Digest;
use lockstep_common::listing::{self, ListError};
use lockstep_common::manifest::DataFile;
use rayon::prelude::*;

use crate::blobs::{BlobError, BlobStore};
pub use crate::data_list::{Listed, list, list_below, no_link_out};
pub use crate::locate::{JobFiles, Located, Reading, locate};
use crate::opened;
pub use crate::opened::{IN_MEMORY_BYTES, Opened};
use crate::stat_cache::{Stamp, StatCache};
pub use crate::watch::Watch;

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
    /// A link to a directory, in a directory.
    #[error("`{}` is a link to a directory: name the directory itself", path.display())]
    LinkToDirectory {
        /// The link.
        path: PathBuf,
    },
    /// A link in a directory to what does not lie in it, where the contents would be stored.
    #[error(
        "`{}` is a link out of `{}`, to `{}`, and its contents would be stored: put the file itself there, or remove the link",
        path.display(), dir.display(), to.display()
    )]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// Where it leads, past all links.
        to: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
    /// A name that no job could write.
    #[error("the name of `{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// What Git LFS leaves in a file's place.
    #[error("data file `{}` is a pointer of Git LFS, not the data: `git lfs pull` fetches it", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A file that is being written.
    #[error("data file `{}` changes while it is hashed: wait until nobody writes to it", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// Other contents than when the run was submitted.
    #[error("data file `{}` has changed since the run was submitted: {file}{}", file.path.display(), if *stored { "; the store has the original: move this file away, or put it back" } else { "" })]
    Changed {
        /// At submit, and now.
        file: Mismatch,
        /// Whether the store is known to have the file of the submit.
        stored: bool,
    },
    /// Other contents than when training on it began.
    #[error("data file `{path}` changed during training: {mismatch}; no checkpoint was written since: put the file back, then resume the last checkpoint", path = .0.path.display(), mismatch = .0)]
    ChangedInTraining(Mismatch),
    /// Other contents for a while; those that were verified are back.
    #[error("data file `{}` was changed during training, and then put back: steps may have read the other contents; no checkpoint was written since: resume the last checkpoint", path.display())]
    ChangedAndBack {
        /// Where it lies.
        path: PathBuf,
    },
    /// Other contents, and the times of a file that nobody wrote.
    #[error("data file `{path}` was changed during training by a program that has it mapped, so that its times did not show it: {mismatch}; earlier checkpoints may be of the other contents: put the file back, then submit the job again", path = .0.path.display(), mismatch = .0)]
    ChangedUnseen(Mismatch),
    /// Neither where the job names it nor in the store.
    #[error("data file `{}` does not exist, and this machine sees no copy in the store `{}` (digest `{digest}`): put the file back, or keep a copy with `coord data add`", path.display(), store.display())]
    Nowhere {
        /// The file.
        path: PathBuf,
        /// The store.
        store: PathBuf,
        /// Digest at submit.
        digest: Digest,
    },
    /// The copy in the store cannot be used.
    #[error("data file `{}` does not exist, and its copy cannot be used", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// The list of a directory is not in the store, or damaged.
    #[error("cannot read the list of the files of data directory `{}`", path.display())]
    NoList {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// The list of a directory is none.
    #[error("the files of data directory `{}` are not known", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ListError,
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

/// A file with other contents than those that were verified.
#[derive(Debug)]
pub struct Mismatch {
    /// Where it lies.
    pub path: PathBuf,
    /// The digest that it had.
    pub expected: Digest,
    /// The bytes that it had.
    pub expected_bytes: u64,
    /// Its digest now.
    pub found: Digest,
    /// Its bytes now.
    pub found_bytes: u64,
}

impl Mismatch {
    /// `file`, of which `found_bytes` with the digest `found` lie at `path`.
    pub(crate) fn of(file: &DataFile, path: &Path, (found, found_bytes): (Digest, u64)) -> Self {
        Self { path: path.to_owned(), expected: file.digest, expected_bytes: file.bytes, found, found_bytes }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, expected_bytes, found, found_bytes, .. } = self;
        write!(
            f,
            "expected {expected_bytes} bytes with digest `{expected}`, found {found_bytes} bytes with digest `{found}`"
        )
    }
}

impl DataHashError {
    /// Whether a file changed under a run that trains on it.
    pub fn is_change_in_training(&self) -> bool {
        matches!(self, Self::ChangedInTraining(_) | Self::ChangedAndBack { .. } | Self::ChangedUnseen(_))
    }
}

/// Hashes `files`, by plain reads and on all cores; with `cache` only those that it does not know as they are. `done` is told
/// the bytes of each file that is.
pub fn hash_files(
    files: &[&Listed],
    cache: Option<&StatCache>,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Vec<DataFile>, DataHashError> {
    let hash = |file: &&Listed| {
        let known = cache.zip(file.stamp).and_then(|(cache, stamp)| Some((stamp.bytes(), cache.get(&stamp)?)));
        let hashed = match known {
            Some((bytes, digest)) => DataFile { path: file.path.clone(), bytes, digest },
            None => hash_file(&file.at, &file.path, cache, file.in_directory)?,
        };
        done(hashed.bytes);
        Ok(hashed)
    };
    files.par_iter().map(hash).collect()
}

/// Checks that every file is what it was when `files` were hashed.
pub fn verify(base_dir: &Path, files: &[DataFile]) -> Result<(), DataHashError> {
    files.iter().try_for_each(|file| {
        let path = base_dir.join(&file.path);
        let hashed = opened::open(&path, file.bytes == 0, None)?;
        let found = (hashed.digest, hashed.bytes);
        let changed = || DataHashError::Changed { file: Mismatch::of(file, &path, found), stored: false };
        if hashed.digest == file.digest { Ok(()) } else { Err(changed()) }
    })
}

/// `data` with the files of a directory in its place, whose list `store` has.
pub fn listed(data: &[DataFile], store: &BlobStore) -> Result<Vec<DataFile>, DataHashError> {
    let mut files = Vec::new();
    for entry in data {
        if !entry.is_directory() {
            files.push(entry.clone());
            continue;
        }
        let list = store.get(&entry.piece());
        let list = list.map_err(|source| DataHashError::NoList { path: entry.path.clone().into(), source })?;
        let below = listing::decode(entry, &list);
        files.extend(below.map_err(|source| DataHashError::List { path: entry.path.clone().into(), source })?);
    }
    Ok(files)
}

/// Hashes the file at `path`, that is called `name`.
fn hash_file(
    path: &Path,
    name: &str,
    cache: Option<&StatCache>,
    may_be_empty: bool,
) -> Result<DataFile, DataHashError> {
    let file = |bytes, digest| DataFile { path: name.to_owned(), bytes, digest };
    let known = cache.and_then(|cache| {
        let stamp = Stamp::of(&fs::metadata(path).ok().filter(fs::Metadata::is_file)?);
        Some(file(stamp.bytes(), cache.get(&stamp)?)).filter(|file| file.bytes > 0 || may_be_empty)
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let begun = SystemTime::now();
    let hashed = opened::open(path, may_be_empty, None)?;
    if let Some(cache) = cache {
        cache.put(hashed.stamp, begun, hashed.digest);
    }
    Ok(file(hashed.bytes, hashed.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(dir: &Path, path: &str, cache: Option<&StatCache>) -> Result<Vec<DataFile>, DataHashError> {
        hash_files(&[&Listed::new(dir, path)], cache, &|_| ())
    }

    #[test]
    fn changed_missing_and_empty_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abc").unwrap();
        let files = hash(dir.path(), "a", None).unwrap();
        assert_eq!(files[0].digest.to_hex(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        verify(dir.path(), &files).unwrap();
        std::fs::write(dir.path().join("a"), b"abd").unwrap();
        let error = verify(dir.path(), &files).unwrap_err().to_string();
        assert!(error.contains("expected 3 bytes with digest `6437b3ac") && error.contains("found 3 bytes"), "{error}");
        std::fs::write(dir.path().join("a"), b"").unwrap();
        assert!(matches!(verify(dir.path(), &files), Err(DataHashError::Empty { .. })));
        assert!(matches!(hash(dir.path(), "b", None), Err(DataHashError::Missing { .. })));
        assert!(matches!(hash(dir.path(), ".", None), Err(DataHashError::NotAFile { .. })));
    }

    #[test]
    fn a_pointer_of_git_lfs_is_not_taken_for_data() {
        let dir = tempfile::tempdir().unwrap();
        let text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        std::fs::write(dir.path().join("a"), text).unwrap();
        let error = hash(dir.path(), "a", None).unwrap_err().to_string();
        assert!(error.contains("a pointer of Git LFS, not the data: `git lfs pull`"), "{error}");
    }

    #[test]
    fn an_empty_file_of_a_directory_is_a_file_as_any_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/_SUCCESS"), b"").unwrap();
        fs::write(dir.path().join("d/a"), b"abc").unwrap();
        let listed = list_below(&dir.path().join("d")).unwrap();
        let hashed = hash_files(&listed.iter().collect::<Vec<_>>(), None, &|_| ()).unwrap();
        let found: Vec<_> = hashed.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
        assert_eq!(found, [("_SUCCESS", 0), ("a", 3)]);
        // A list of the directory names it, it is found again, stored and watched.
        let list = listing::encode(&hashed);
        let files = listing::decode(&DataFile::directory("d", &list), &list).unwrap();
        let store = BlobStore::open(&dir.path().join("store")).unwrap();
        let reading = Reading { in_memory: 0, by_path: true };
        locate(dir.path(), &files, &store, false, reading).unwrap().watch.check().unwrap();
        assert_eq!(store.put(b"").unwrap(), files[0].piece());
        fs::remove_file(dir.path().join("d/_SUCCESS")).unwrap();
        let located = locate(dir.path(), &files, &store, false, reading).unwrap();
        assert_eq!(fs::read(located.files.at("d/_SUCCESS")).unwrap(), b"");
        // It is not empty any more.
        fs::write(dir.path().join("d/_SUCCESS"), b"x").unwrap();
        assert!(matches!(
            verify(dir.path(), &files),
            Err(DataHashError::Changed { file: Mismatch { expected_bytes: 0, .. }, .. })
        ));
        // A file that a job names itself holds something.
        assert!(matches!(hash(dir.path(), "store/tmp", None), Err(DataHashError::NotAFile { .. })));
        fs::write(dir.path().join("e"), b"").unwrap();
        assert!(matches!(hash(dir.path(), "e", None), Err(DataHashError::Empty { .. })));
    }

    #[test]
    fn a_known_file_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, kept) = (dir.path().join("a"), dir.path().join("cache"));
        let cache = StatCache::open(&kept);
        std::fs::write(&path, b"abc").unwrap();
        let first = hash(dir.path(), "a", Some(&cache)).unwrap();
        // As if it had been there for long, and with another digest, to see where the answer comes from.
        let other = Digest::from_bytes([9; 32]);
        cache.put(
            Stamp::of(&fs::metadata(&path).unwrap()),
            SystemTime::now() + std::time::Duration::from_secs(90),
            other,
        );
        cache.save().unwrap();
        let cache = StatCache::open(&kept);
        assert_eq!(hash(dir.path(), "a", Some(&cache)).unwrap()[0].digest, other);
        let listed = list_below(dir.path()).unwrap();
        assert_eq!(hash_files(&[&listed[0]], Some(&cache), &|_| ()).unwrap()[0].digest, other);
        assert_eq!(hash(dir.path(), "a", None).unwrap(), first);
        assert!(verify(dir.path(), &first).is_ok(), "a process reads its data");
    }
}
