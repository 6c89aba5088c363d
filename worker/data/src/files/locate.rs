//! Finds the data files of a run on this machine: verifies them, opens each once, and begins to watch them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lockstep_common::JobPaths;
use lockstep_common::job::{Data, JobSpec};
use lockstep_common::manifest::DataFile;
use rayon::prelude::*;

use lockstep_host::data::{self, DataHashError, Hashed, IN_MEMORY_BYTES, Mismatch, Opened};
use lockstep_store::{BlobError, BlobStore};

use super::error::FilesError;
use super::watch::{HELD, Kept, Watch, Watched};

/// The paths of a job's files on this machine, and the open verified files.
#[derive(Clone, Debug, Default)]
pub struct JobFiles {
    paths: JobPaths,
    /// Verified files by their path on this machine.
    opened: Arc<BTreeMap<PathBuf, Opened>>,
}

impl JobFiles {
    /// Path on this machine of the file that the job names `path`.
    pub fn at(&self, path: &str) -> PathBuf {
        self.paths.at(path)
    }

    /// The open file that was verified at the path `at`; `None` if none was.
    pub fn opened(&self, at: &Path) -> Option<&Opened> {
        self.opened.get(at)
    }
}

impl From<JobPaths> for JobFiles {
    fn from(paths: JobPaths) -> Self {
        Self { paths, opened: Arc::default() }
    }
}

impl From<&Path> for JobFiles {
    fn from(base_dir: &Path) -> Self {
        JobPaths::from(base_dir).into()
    }
}

/// How a process reads its data.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Upper limit for the total size of files that are read into memory, smallest first. 0: none is.
    pub in_memory: u64,
    /// Whether a program may open the files by their paths at any time.
    pub by_path: bool,
}

impl Reading {
    /// The way in which `job` reads: built-in formats read the verified files, a program may also open paths.
    pub fn of(job: &JobSpec) -> Self {
        let only_paths = matches!(job.data, Data::Files { .. });
        Self { in_memory: if only_paths { 0 } else { IN_MEMORY_BYTES }, by_path: job.program.is_some() }
    }

    /// For each of `files`, whether it is read into memory.
    fn small(self, files: &[DataFile]) -> Vec<bool> {
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_by_key(|&index| files[index].bytes);
        let (mut small, mut total) = (vec![false; files.len()], 0_u64);
        for index in order {
            total = total.saturating_add(files[index].bytes);
            small[index] = self.in_memory > 0 && total <= self.in_memory;
        }
        small
    }
}

/// The verified files of a run.
#[derive(Debug)]
pub struct Located {
    /// Paths and open files.
    pub files: JobFiles,
    /// Checks later whether they are still as they were verified.
    pub watch: Watch,
}

/// A verified file. The name is the path in the job, if the copy in the store is used instead of that path.
type Found = (Option<String>, Watched, Opened);

/// Finds each of `files`, and verifies its digest: the file at its path below `base_dir`, or, if that does not exist, the copy
/// in `store`. With `other_revision` (the files below `base_dir` may belong to another revision) the copy is also used in place
/// of a file with another digest.
pub fn locate(
    base_dir: &Path,
    files: &[DataFile],
    store: &BlobStore,
    other_revision: bool,
    reading: Reading,
) -> Result<Located, FilesError> {
    let find = |(index, (file, small)): (usize, (&DataFile, bool))| -> Result<Found, FilesError> {
        let path = base_dir.join(&file.path);
        let one = One { file, small, held: index < HELD, reading };
        let failed = |source| FilesError::Store { path: path.clone(), source };
        match one.verify(&path) {
            Ok((watched, opened)) => Ok((None, watched, opened)),
            Err(DataHashError::Changed { .. }) if other_revision && store.has(&file.piece()) => {
                let (watched, opened) = one.verify_copy(store).map_err(failed)?;
                Ok((Some(file.path.clone()), watched, opened))
            }
            Err(DataHashError::Changed { file: mismatch, .. }) => {
                Err(DataHashError::Changed { file: mismatch, stored: store.has(&file.piece()) }.into())
            }
            Err(DataHashError::Missing { .. }) => match one.verify_copy(store) {
                Ok((watched, opened)) => Ok((Some(file.path.clone()), watched, opened)),
                Err(BlobError::Missing { digest, dir }) => Err(FilesError::Nowhere { path, store: dir, digest }),
                Err(source) => Err(failed(source)),
            },
            Err(error) => Err(error.into()),
        }
    };
    let small = reading.small(files);
    let all = files.par_iter().zip(small).enumerate();
    // Files beyond `HELD` are closed again, to stay below the limit for open files.
    let kept = all.map(|(index, one)| {
        find((index, one)).map(|(name, watched, opened)| (name, watched, (index < HELD).then_some(opened)))
    });
    let found = kept.collect::<Result<Vec<_>, _>>()?;
    let (mut moved, mut opened, mut watched) = (BTreeMap::new(), BTreeMap::new(), Vec::with_capacity(found.len()));
    for (name, file, open) in found {
        moved.extend(name.map(|name| (name, file.at().to_owned())));
        opened.extend(open.map(|open| (file.at().to_owned(), open)));
        watched.push(file);
    }
    let files = JobFiles { paths: JobPaths::new(base_dir, moved), opened: Arc::new(opened) };
    Ok(Located { files, watch: Watch::new(watched) })
}

/// A file to verify, and how it is used afterwards.
struct One<'a> {
    file: &'a DataFile,
    small: bool,
    held: bool,
    reading: Reading,
}

impl One<'_> {
    /// Opens the file at `path` and verifies its digest.
    fn verify(&self, path: &Path) -> Result<(Watched, Opened), DataHashError> {
        let (file, begun) = (self.file, SystemTime::now());
        let hashed = self.open(path)?;
        if hashed.digest == file.digest {
            return Ok(self.watched(path, begun, hashed));
        }
        Err(DataHashError::Changed { file: Mismatch::of(file, path, (hashed.digest, hashed.bytes)), stored: false })
    }

    /// Opens the copy in `store` and verifies its digest.
    fn verify_copy(&self, store: &BlobStore) -> Result<(Watched, Opened), BlobError> {
        let (digest, begun) = (self.file.digest, SystemTime::now());
        let path = store.local_path(&digest);
        // `Missing` without a copy, and an error for a copy of another length.
        store.check(&self.file.piece())?;
        let hashed = self.open(&path).map_err(|error| unreadable(path.clone(), error))?;
        if hashed.digest == digest {
            return Ok(self.watched(&path, begun, hashed));
        }
        Err(BlobError::Corrupt { digest, path, found: hashed.digest })
    }

    fn open(&self, path: &Path) -> Result<Hashed, DataHashError> {
        data::open(path, self.file.bytes == 0, self.small.then_some(self.file.bytes))
    }

    fn watched(&self, path: &Path, begun: SystemTime, hashed: Hashed) -> (Watched, Opened) {
        let Hashed { opened, stamp, .. } = hashed;
        let kept = match opened.memory() {
            _ if self.reading.by_path => Kept::ByPath,
            Some(_) => Kept::InMemory,
            None => Kept::Mapped,
        };
        let held = self.held.then(|| Arc::clone(opened.file()));
        (Watched::new(self.file, path, (stamp, begun), held, kept), opened)
    }
}

fn unreadable(path: PathBuf, error: DataHashError) -> BlobError {
    let source = match error {
        DataHashError::Io { source, .. } => source,
        other => std::io::Error::other(other.to_string()),
    };
    BlobError::Io { action: "read", path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lockstep_common::listing;

    use super::*;
    use lockstep_host::data::{Listed, hash_files, list_below, verify};

    const MEMORY: Reading = Reading { in_memory: 1 << 20, by_path: false };
    const MAPPED: Reading = Reading { in_memory: 0, by_path: false };

    fn hash(dir: &Path, path: &str) -> Vec<DataFile> {
        hash_files(&[&Listed::new(dir, path)], None, &|_| ()).unwrap()
    }

    #[test]
    fn a_missing_file_is_found_in_the_store_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(&dir.path().join("store")).unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"abc").unwrap();
        let files = hash(dir.path(), "a");
        let locate = |other_revision| locate(dir.path(), &files, &store, other_revision, MEMORY);
        assert_eq!(locate(false).unwrap().files.at("a"), path);
        fs::remove_file(&path).unwrap();
        let error = locate(false).unwrap_err().to_string();
        assert!(error.contains("/a` does not exist") && error.contains(&files[0].digest.to_hex()), "{error}");
        fs::write(&path, b"abd").unwrap();
        let error = locate(false).unwrap_err().to_string();
        assert!(error.contains("has changed since") && !error.contains("the store has"), "{error}");
        fs::remove_file(&path).unwrap();

        let mut writer = store.writer().unwrap();
        writer.write(b"ab").unwrap();
        writer.write(b"c").unwrap();
        let piece = writer.finish(&store).unwrap();
        assert_eq!((piece.digest, piece.bytes), (files[0].digest, 3));
        let located = locate(false).unwrap().files;
        let copy = located.at("a");
        assert_eq!(fs::read(&copy).unwrap(), b"abc");
        assert_eq!(located.opened(&copy).unwrap().memory().unwrap().as_slice(), b"abc");
        fs::write(&copy, b"abd").unwrap();
        let error = locate(false).unwrap_err();
        assert!(matches!(error, FilesError::Store { source: BlobError::Corrupt { .. }, .. }), "{error}");
        fs::write(&path, b"abd").unwrap();
        assert!(matches!(locate(false), Err(FilesError::File(DataHashError::Changed { .. }))));
        fs::write(&copy, b"abc").unwrap();
        let error = locate(false).unwrap_err().to_string();
        assert!(error.ends_with("; the store has the original: move this file away, or put it back"), "{error}");
        assert_eq!(locate(true).unwrap().files.at("a"), copy);
    }

    #[test]
    fn files_are_read_into_memory_smallest_first_up_to_a_bound() {
        let file = |bytes| DataFile { path: "x".to_owned(), bytes, digest: lockstep_common::Domain::Blob.digest(b"") };
        let files = [file(600), file(300), file(500), file(200)];
        let small = |in_memory| Reading { in_memory, by_path: false }.small(&files);
        assert_eq!(small(1000), [false, true, true, true]);
        assert_eq!(small(999), [false, true, false, true]);
        assert_eq!(small(1600), [true; 4]);
        assert_eq!(small(0), [false; 4]);
    }

    #[test]
    fn what_is_read_is_the_file_that_was_verified_wherever_its_link_leads() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(&dir.path().join("store")).unwrap();
        for name in ["A", "B"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let link = dir.path().join("a");
        std::os::unix::fs::symlink("A", &link).unwrap();
        let files = hash(dir.path(), "a");
        for reading in [MEMORY, MAPPED] {
            let located = locate(dir.path(), &files, &store, false, reading).unwrap().files;
            fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink("B", &link).unwrap();
            let opened = located.opened(&link).unwrap();
            assert_eq!(fs::read(opened.path()).unwrap(), b"A");
            assert_eq!(opened.memory().is_some(), reading.in_memory > 0);
            fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink("A", &link).unwrap();
        }
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
        // The directory's list names it; it is located, stored and watched.
        let list = listing::encode(&hashed);
        let files = listing::decode(&DataFile::directory("d", &list), &list).unwrap();
        let store = BlobStore::open(&dir.path().join("store")).unwrap();
        let reading = Reading { in_memory: 0, by_path: true };
        locate(dir.path(), &files, &store, false, reading).unwrap().watch.check().unwrap();
        assert_eq!(store.put(b"").unwrap(), files[0].piece());
        fs::remove_file(dir.path().join("d/_SUCCESS")).unwrap();
        let located = locate(dir.path(), &files, &store, false, reading).unwrap();
        assert_eq!(fs::read(located.files.at("d/_SUCCESS")).unwrap(), b"");
        // A file that is no longer empty has changed.
        fs::write(dir.path().join("d/_SUCCESS"), b"x").unwrap();
        assert!(matches!(
            verify(dir.path(), &files),
            Err(DataHashError::Changed { file: Mismatch { expected_bytes: 0, .. }, .. })
        ));
    }
}
