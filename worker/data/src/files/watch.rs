//! Checks during training that data files still have the contents that were verified.
//!
//! A file with unchanged inode, size and times is not read; any other is hashed again. A file that is not in memory may have been
//! read while its contents were different, so any write to it is an error, even if it was undone. A program that has a file mapped
//! may write to it without changing its times, so mapped files are hashed again before the last checkpoint counts.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lockstep_common::manifest::DataFile;
use lockstep_common::{Digest, Domain};
use lockstep_host::data::{DataHashError, Mismatch, Stamp, hash_read};
use rayon::prelude::*;
use tracing::warn;

use super::error::FilesError;

/// Upper limit for files that are held open, so that they can be checked after their paths lead to other files. A process may
/// open 1024 files by default, and needs some of them for its peers.
pub(super) const HELD: usize = 64;

/// How a process reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// From a copy in its memory, which no other process can change.
    InMemory,
    /// Through a mapping.
    Mapped,
    /// By its path, at any time, in a program.
    ByPath,
}

/// The verified files that a process trains on.
#[derive(Debug, Default)]
pub struct Watch {
    files: Vec<Watched>,
}

/// One verified file, and the state of its checks.
#[derive(Debug)]
pub(super) struct Watched {
    file: DataFile,
    at: PathBuf,
    held: Option<Arc<File>>,
    kept: Kept,
    /// Its stamp when it was verified.
    verified: Stamp,
    seen: Mutex<Seen>,
}

/// Stamps with which the contents were last known to be right; `None`: the next check hashes the file.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Stamp of the held file, or, if none is held, of the file at the path.
    stamp: Option<Stamp>,
    /// Stamp of another file at the path of the held one.
    other: Option<Stamp>,
    /// Whether a warning that the file does not exist was logged.
    gone: bool,
    /// Whether a check is under way, or has failed, that began with an unchanged stamp.
    unseen: bool,
}

impl Watched {
    /// A file at `at` that was verified as `file`: it had `stamp`, and reading began at `begun`. `held` is the open file.
    ///
    /// If the file was modified shortly before `begun`, another write may not change its times: the first check hashes it.
    pub(super) fn new(
        file: &DataFile,
        at: &Path,
        (stamp, begun): (Stamp, SystemTime),
        held: Option<Arc<File>>,
        kept: Kept,
    ) -> Self {
        let seen =
            Mutex::new(Seen { stamp: stamp.is_old(begun).then_some(stamp), other: None, gone: false, unseen: false });
        Self { file: file.clone(), at: at.to_owned(), held, kept, verified: stamp, seen }
    }

    /// Its path on this machine.
    pub(super) fn at(&self) -> &Path {
        &self.at
    }

    /// Checks the file. With `whole` a mapped file is hashed even if its stamp is unchanged.
    fn check(&self, whole: bool) -> Result<(), FilesError> {
        let io = |source| DataHashError::Io { path: self.at.clone(), source };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = None;
        if let Some(file) = &self.held {
            let now = Stamp::of(&file.metadata().map_err(io)?);
            held = Some(now);
            let known = seen.stamp == Some(now);
            if !known || (whole && self.kept == Kept::Mapped) {
                // Reset below, when the contents are found to be right.
                seen.unseen |= known;
                seen.stamp = None;
                self.compare(file, now, seen.unseen)?;
                (seen.stamp, seen.unseen) = (Some(now), false);
            }
        }
        let now = match fs::metadata(&self.at) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !std::mem::replace(&mut seen.gone, true) {
                    warn!(
                        "data file `{}` does not exist any more; training continues with its open contents",
                        self.at.display()
                    );
                }
                return Ok(());
            }
            Err(error) => return Err(io(error).into()),
        };
        let known = match held {
            Some(held) if held.is_same_file(&now) => return Ok(()),
            Some(_) => &mut seen.other,
            None => &mut seen.stamp,
        };
        if *known != Some(now) {
            self.compare(&File::open(&self.at).map_err(io)?, now, false)?;
            *known = Some(now);
        }
        Ok(())
    }

    /// Hashes `file`, which has the stamp `now`.
    ///
    /// # Errors
    /// `ChangedUnseen` for other contents with `unseen` (an unchanged stamp), else `ChangedInTraining`. `ChangedAndBack` for the
    /// same contents after a write, unless the file is in memory.
    fn compare(&self, file: &File, now: Stamp, unseen: bool) -> Result<(), FilesError> {
        let mut hasher = Domain::Blob.hasher();
        let path = self.at.clone();
        if let Err(source) = hash_read(file, &mut hasher) {
            return Err(DataHashError::Io { path, source }.into());
        }
        let (found, found_bytes) = (Digest::of(&hasher), hasher.count());
        if found == self.file.digest {
            let written = self.kept != Kept::InMemory && now.is_written_since(&self.verified);
            return if written { Err(FilesError::ChangedAndBack { path }) } else { Ok(()) };
        }
        let mismatch = Mismatch::of(&self.file, &path, (found, found_bytes));
        Err(if unseen { FilesError::ChangedUnseen(mismatch) } else { FilesError::ChangedInTraining(mismatch) })
    }
}

impl Watch {
    /// Watches `files` from now on.
    pub(super) fn new(files: Vec<Watched>) -> Self {
        Self { files }
    }

    /// Checks, on all cores, that every file has the contents that were verified, and that none that is not in memory was
    /// written to.
    ///
    /// A removed file is not an error: open and mapped contents remain.
    ///
    /// # Errors
    /// `ChangedInTraining`, `ChangedAndBack`; `File` with `Io` if a file cannot be read, whose contents are then unknown.
    pub fn check(&self) -> Result<(), FilesError> {
        self.files.par_iter().try_for_each(|file| file.check(false))
    }

    /// As [`Watch::check`], for a run's last checkpoint: mapped files are hashed even if their stamps are unchanged.
    ///
    /// # Errors
    /// Those of [`Watch::check`], and `ChangedUnseen`.
    pub fn check_last(&self) -> Result<(), FilesError> {
        self.files.par_iter().try_for_each(|file| file.check(true))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::*;
    use lockstep_host::data;

    /// A verified file of 3 bytes whose last write counts as long ago.
    fn kept(dir: &Path, held: bool, kept: Kept) -> (PathBuf, Watch) {
        let at = dir.join("a");
        fs::write(&at, b"abc").unwrap();
        let file = data::hash_files(&[&data::Listed::new(dir, "a")], None, &|_| ()).unwrap().remove(0);
        let later = SystemTime::now() + Duration::from_secs(10);
        let held = held.then(|| Arc::new(File::open(&at).unwrap()));
        let stamp = Stamp::of(&fs::metadata(&at).unwrap());
        let watched = Watched::new(&file, &at, (stamp, later), held, kept);
        (at, Watch { files: vec![watched] })
    }

    fn watched(dir: &Path, held: bool) -> (PathBuf, Watch) {
        kept(dir, held, Kept::InMemory)
    }

    fn found(watch: &Watch) -> u64 {
        match watch.check() {
            Err(FilesError::ChangedInTraining(Mismatch { found_bytes, expected_bytes: 3, .. })) => found_bytes,
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
        let of = |begun| Watch { files: vec![Watched::new(&file, &at, (stamp, begun), None, Kept::InMemory)] };
        assert_eq!(found(&of(SystemTime::now())), 3);
        of(SystemTime::now() + Duration::from_secs(10)).check().unwrap();
    }

    #[test]
    fn a_file_that_is_not_in_memory_must_not_be_written_to_even_if_it_is_put_back() {
        for (held, how) in [(true, Kept::Mapped), (true, Kept::ByPath), (false, Kept::ByPath)] {
            let dir = tempfile::tempdir().unwrap();
            let (at, watch) = kept(dir.path(), held, how);
            watch.check().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let file = File::options().write(true).open(&at).unwrap();
            file.write_all_at(b"x", 1).unwrap();
            file.write_all_at(b"b", 1).unwrap();
            let said = watch.check().unwrap_err().to_string();
            assert!(said.contains("/a` was changed during training, and then put back"), "{said}");
            assert!(matches!(watch.check_last(), Err(FilesError::ChangedAndBack { .. })));
        }
    }

    #[test]
    fn a_mapped_file_may_be_renamed_linked_locked_and_removed() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let (at, watch) = kept(dir.path(), true, Kept::Mapped);
        std::thread::sleep(Duration::from_millis(20));
        fs::hard_link(&at, dir.path().join("b")).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o400)).unwrap();
        watch.check().unwrap();
        fs::rename(&at, dir.path().join("c")).unwrap();
        watch.check().unwrap();
        fs::remove_file(dir.path().join("b")).unwrap();
        fs::remove_file(dir.path().join("c")).unwrap();
        watch.check_last().unwrap();
    }

    #[test]
    fn a_change_that_no_time_shows_is_found_with_the_last_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let (at, watch) = kept(dir.path(), true, Kept::Mapped);
        fs::write(&at, b"abd").unwrap();
        // Simulates a write that changed no time.
        watch.files[0].seen.lock().unwrap().stamp = Some(Stamp::of(&fs::metadata(&at).unwrap()));
        watch.check().unwrap();
        let said = watch.check_last().unwrap_err();
        assert!(matches!(&said, FilesError::ChangedUnseen(Mismatch { found_bytes: 3, .. })), "{said}");
        assert!(said.to_string().contains("/a` was changed during training by a program that has it mapped"), "{said}");
        assert!(said.is_change_in_training());
        // Further checks fail, too.
        assert!(matches!(watch.check(), Err(FilesError::ChangedUnseen(_))));
    }
}
