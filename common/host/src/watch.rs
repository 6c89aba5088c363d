//! Data files while a process trains on them: whether they are still what the process verified.
//!
//! A file whose inode, size and both times are as they were is not read. Any other is hashed again.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use lockstep_common::manifest::DataFile;
use lockstep_common::{Digest, Domain};
use rayon::prelude::*;
use tracing::warn;

use crate::data::DataHashError;
use crate::stat_cache::Stamp;

/// Files that are held open, so that their contents are known when their names lead elsewhere. A process may open 1024
/// files by default, and needs some of them for its peers.
const HELD: usize = 64;

/// The files that a process trains on, as they were verified.
#[derive(Debug, Default)]
pub struct Watch {
    files: Vec<Watched>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct Watched {
    file: DataFile,
    at: PathBuf,
    held: Option<File>,
    seen: Mutex<Seen>,
}

/// When the contents were last known to be right. `None`: they are to be hashed at the next check.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Of the held file; where none is held, of the file that the path leads to.
    stamp: Option<Stamp>,
    /// Of another file that took the path of the held one.
    other: Option<Stamp>,
    /// Whether a warning said that the file is gone.
    gone: bool,
}

impl Watched {
    /// `file`, which lies at `at` and was verified: it had `stamp` at `begun`, before it was read.
    ///
    /// A file that is as young as that may change again without its times showing it, so that the first check hashes it.
    pub(crate) fn new(file: &DataFile, at: &Path, stamp: Stamp, begun: SystemTime) -> Self {
        let stamp = stamp.is_old(begun).then_some(stamp);
        let seen = Mutex::new(Seen { stamp, other: None, gone: false });
        Self { file: file.clone(), at: at.to_owned(), held: None, seen }
    }

    /// Where it lies.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Opens the file, if the path still leads to what was verified. Else the first check finds that it does not.
    fn hold(&mut self) {
        let seen = self.seen.get_mut().unwrap_or_else(PoisonError::into_inner);
        let held = File::open(&self.at).and_then(|file| Ok((Stamp::of(&file.metadata()?), file)));
        self.held = held.ok().filter(|(stamp, _)| seen.stamp.is_none_or(|seen| seen == *stamp)).map(|(_, file)| file);
    }

    fn check(&self) -> Result<(), DataHashError> {
        let io = |source| DataHashError::Io { path: self.at.clone(), source };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = None;
        if let Some(file) = &self.held {
            let now = Stamp::of(&file.metadata().map_err(io)?);
            held = Some(now);
            if seen.stamp != Some(now) {
                self.compare(file)?;
                seen.stamp = Some(now);
            }
        }
        let now = match fs::metadata(&self.at) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !std::mem::replace(&mut seen.gone, true) {
                    warn!(
                        "data file `{}` does not exist any more; training continues on its open contents",
                        self.at.display()
                    );
                }
                return Ok(());
            }
            Err(error) => return Err(io(error)),
        };
        let known = match held {
            Some(held) if held.is_same_file(&now) => return Ok(()),
            Some(_) => &mut seen.other,
            None => &mut seen.stamp,
        };
        if *known != Some(now) {
            self.compare(&File::open(&self.at).map_err(io)?)?;
            *known = Some(now);
        }
        Ok(())
    }

    /// Hashes `file`, and refuses other contents than those that were verified.
    fn compare(&self, mut file: &File) -> Result<(), DataHashError> {
        let mut hasher = Domain::Blob.hasher();
        let hashed = file.rewind().and_then(|()| hasher.update_reader(file).map(drop));
        hashed.map_err(|source| DataHashError::Io { path: self.at.clone(), source })?;
        let (found, found_bytes) = (Digest::of(&hasher), hasher.count());
        if found == self.file.digest {
            return Ok(());
        }
        let (expected, expected_bytes) = (self.file.digest, self.file.bytes);
        Err(DataHashError::ChangedInTraining { path: self.at.clone(), expected, expected_bytes, found, found_bytes })
    }
}

impl Watch {
    /// Of these files; the first of them are held open.
    pub(crate) fn new(mut files: Vec<Watched>) -> Self {
        files.iter_mut().take(HELD).for_each(Watched::hold);
        Self { files }
    }

    /// Checks that every file has the contents that were verified, on all cores.
    ///
    /// A file that was removed is not an error: open and mapped contents stay as they are.
    ///
    /// # Errors
    /// `ChangedInTraining`; `Io` if a file cannot be read, which says nothing of its contents.
    pub fn check(&self) -> Result<(), DataHashError> {
        self.files.par_iter().try_for_each(Watched::check)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::*;
    use crate::data;

    /// A verified file of 3 bytes, as if it had lain there for long.
    fn watched(dir: &Path, held: bool) -> (PathBuf, Watch) {
        let at = dir.join("a");
        fs::write(&at, b"abc").unwrap();
        let file = data::hash_files(&[&data::Listed::new(dir, "a")], None, &|_| ()).unwrap().remove(0);
        let later = SystemTime::now() + Duration::from_secs(10);
        let mut watched = Watched::new(&file, &at, Stamp::of(&fs::metadata(&at).unwrap()), later);
        if held {
            watched.hold();
        }
        (at, Watch { files: vec![watched] })
    }

    fn found(watch: &Watch) -> u64 {
        match watch.check() {
            Err(DataHashError::ChangedInTraining { found_bytes, expected_bytes: 3, .. }) => found_bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_is_overwritten_truncated_or_replaced_is_found() {
        for held in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (at, watch) = watched(dir.path(), held);
            watch.check().unwrap();
            let file = File::options().write(true).open(&at).unwrap();
            file.write_all_at(b"x", 1).unwrap();
            let said = watch.check().unwrap_err().to_string();
            assert!(said.contains("/a` changed during training: expected 3 bytes with digest `6437b3ac"), "{said}");
            assert_eq!(said.matches("digest `").count(), 2, "{said}");
            file.write_all_at(b"b", 1).unwrap();
            watch.check().unwrap();
            file.set_len(0).unwrap();
            assert_eq!(found(&watch), 0);
            file.write_all_at(b"abc", 0).unwrap();
            watch.check().unwrap();
            fs::write(dir.path().join("new"), b"abcd").unwrap();
            fs::rename(dir.path().join("new"), &at).unwrap();
            assert_eq!(found(&watch), 4);
        }
    }

    #[test]
    fn other_times_or_another_file_with_the_same_contents_are_no_change() {
        for held in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (at, watch) = watched(dir.path(), held);
            File::options().write(true).open(&at).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            watch.check().unwrap();
            fs::write(dir.path().join("new"), b"abc").unwrap();
            fs::rename(dir.path().join("new"), &at).unwrap();
            watch.check().unwrap();
            fs::remove_file(&at).unwrap();
            watch.check().unwrap();
        }
    }

    #[test]
    fn what_happens_to_a_held_file_without_a_name_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (at, watch) = watched(dir.path(), true);
        let file = File::options().write(true).open(&at).unwrap();
        fs::remove_file(&at).unwrap();
        watch.check().unwrap();
        file.write_all_at(b"x", 1).unwrap();
        assert_eq!(found(&watch), 3);
    }

    #[test]
    fn a_young_file_is_hashed_at_the_first_check() {
        let dir = tempfile::tempdir().unwrap();
        let (at, _) = watched(dir.path(), false);
        let file = DataFile { path: "a".to_owned(), bytes: 3, digest: Domain::Blob.digest(b"abd") };
        let stamp = Stamp::of(&fs::metadata(&at).unwrap());
        let of = |begun| Watch { files: vec![Watched::new(&file, &at, stamp, begun)] };
        assert_eq!(found(&of(SystemTime::now())), 3);
        of(SystemTime::now() + Duration::from_secs(10)).check().unwrap();
    }
}
