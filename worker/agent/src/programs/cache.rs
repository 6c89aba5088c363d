//! The cache of programs: the path of each entry, and the lock that protects it.
//!
//! The lock is on a file beside the entry's directory. Every process that runs in the entry holds it shared, whichever agent
//! started the process; a build or a deletion holds it exclusively. A process has the lock file, which is empty, as its standard
//! input: the lock lasts as long as the process and its children, even if their agent ends.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lockstep_common::{Digest, canonical};
use lockstep_host::access::make_private_file;
use lockstep_host::durable::{is_at, write_atomic};
use lockstep_host::plain;
use tracing::warn;

use super::{BuildSpec, Built};

/// Age above which the temporary directories of killed builds are deleted.
const LEFT_OVER: Duration = Duration::from_hours(24);

/// Upper limit for the size of `built.json`; an entry with a larger one counts as not built.
const FACTS_BYTES: u64 = 16 << 20;

/// Prefix of the names of temporary directories, in which work trees are written.
pub(crate) const FRESH: &str = ".fresh-";

/// The paths of a program, built or not.
#[derive(Debug)]
pub(crate) struct CacheEntry {
    /// Directory of the whole entry.
    pub(crate) dir: PathBuf,
    /// The work tree, in `dir`.
    pub(crate) tree: PathBuf,
    /// Working directory of the build and of the program's processes, in `tree`.
    pub(crate) directory: PathBuf,
    program: PathBuf,
    facts: PathBuf,
}

/// Result of an attempt to lock an entry for a build.
pub(crate) enum Claim {
    /// Nobody else uses the entry while this file is open.
    Exclusive(File),
    /// Another agent has built it meanwhile.
    Built(Built),
    /// Another agent builds or deletes it, or a process runs in it.
    Taken,
}

impl CacheEntry {
    pub(crate) fn new(programs: &Path, spec: &BuildSpec) -> Self {
        let dir = programs.join(spec.key.to_hex());
        let tree = dir.join("tree");
        let directory = tree.join(&spec.directory);
        Self { program: dir.join("program"), facts: dir.join("built.json"), dir, tree, directory }
    }

    /// The program, if it is built. Nobody deletes it while the value lives.
    pub(crate) fn built(&self) -> Option<Built> {
        // Most programs were never built: no lock file is created for them.
        if !self.facts.exists() {
            return None;
        }
        let in_use = locked(&lock_path(&self.dir), File::try_lock_shared).ok()??;
        self.built_under(in_use)
    }

    /// As [`CacheEntry::built`], with a lock that the caller holds.
    fn built_under(&self, in_use: File) -> Option<Built> {
        let facts = serde_json::from_slice(&plain::read(&self.facts, FACTS_BYTES).ok()?).ok()?;
        let (program, directory, in_use) = (self.program.clone(), self.directory.clone(), Arc::new(in_use));
        (program.is_file() && directory.is_dir()).then_some(Built { program, directory, facts, in_use })
    }

    /// Tries to lock the entry exclusively, to build the program.
    pub(crate) fn claim(&self) -> io::Result<Claim> {
        if let Some(built) = self.built() {
            return Ok(Claim::Built(built));
        }
        Ok(locked(&lock_path(&self.dir), File::try_lock)?.map_or(Claim::Taken, Claim::Exclusive))
    }

    /// Copies `program` into the entry and writes its facts: from now on it counts as built. `alone` is the lock of [`CacheEntry::claim`].
    pub(crate) fn keep(&self, program: &Path, facts: &BTreeMap<String, String>, alone: File) -> io::Result<Built> {
        fs::copy(program, &self.program)?;
        File::open(&self.program)?.sync_all()?;
        write_atomic(&self.facts, &canonical::encode(facts))?;
        // Turns the exclusive lock into a shared one. That is not atomic: another agent may delete the entry in between.
        alone.lock_shared()?;
        self.built_under(alone)
            .ok_or_else(|| io::Error::other("another agent deleted the copy at once: raise `programs` in worker.toml"))
    }

    /// Sets the time of its last use to now: [`prune`] deletes the least recently used.
    pub(crate) fn touch(&self) {
        let touched = plain::open(&self.facts).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            warn!("cannot set the time of the last use of `{}`: {error}", self.dir.display());
        }
    }
}

/// Deletes all entries but the `keep` most recently used and those in use. Failed builds count as entries.
pub(crate) fn prune(programs: &Path, keep: usize) {
    if let Err(error) = pruned(programs, keep) {
        warn!("cannot delete old programs in `{}`: {error}", programs.display());
    }
}

fn pruned(programs: &Path, keep: usize) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(programs)? {
        let entry = entry?;
        let (name, dir) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let Ok(made) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
        if name.parse::<Digest>().is_ok() {
            let used = fs::metadata(dir.join("built.json")).and_then(|facts| facts.modified());
            found.push((used.unwrap_or(made), dir));
        } else if name.starts_with(FRESH) && made.elapsed().is_ok_and(|age| age > LEFT_OVER) {
            fs::remove_dir_all(dir)?;
        }
    }
    found.sort();
    let surplus = found.len().saturating_sub(keep);
    found[..surplus].iter().try_for_each(|(_, dir)| {
        let lock = lock_path(dir);
        let Some(_alone) = locked(&lock, File::try_lock)? else { return Ok(()) };
        // First: a partly deleted entry without its facts does not count as built.
        match fs::remove_file(dir.join("built.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::remove_dir_all(dir)?;
        fs::remove_file(lock)
    })
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Opens or creates the file at `path`, and locks it by `lock`. `None` if another lock on it is held.
fn locked(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> io::Result<Option<File>> {
    loop {
        let file = make_private_file(path)?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // If the entry was deleted meanwhile, so was its lock file, and this lock protects nothing.
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_process_runs_in_is_neither_deleted_nor_built_anew_also_when_its_agent_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("made");
        fs::write(&program, "x").unwrap();
        let entry = |name: u8| {
            let dir = dir.path().join(Digest::from_bytes([name; 32]).to_hex());
            let tree = dir.join("tree");
            let (program, facts) = (dir.join("program"), dir.join("built.json"));
            CacheEntry { program, facts, directory: tree.clone(), dir, tree }
        };
        let build = |entry: &CacheEntry| {
            let Claim::Exclusive(alone) = entry.claim().unwrap() else { panic!("`{}` is taken", entry.dir.display()) };
            assert!(matches!(entry.claim().unwrap(), Claim::Taken) && entry.built().is_none());
            fs::create_dir_all(&entry.tree).unwrap();
            entry.keep(&program, &BTreeMap::new(), alone).unwrap()
        };
        let [old, new, failed] = [1, 2, 3].map(entry);
        let built = build(&old);
        assert!(matches!(old.claim().unwrap(), Claim::Built(_)));
        let input = Stdio::from(built.in_use.try_clone().unwrap());
        let mut process = Command::new("sleep").arg("1000").stdin(input).spawn().unwrap();
        drop(built);
        drop(build(&new));
        prune(dir.path(), 1);
        assert!(old.tree.exists() && old.built().is_some());
        fs::remove_file(&old.facts).unwrap();
        assert!(matches!(old.claim().unwrap(), Claim::Taken), "its tree would be written anew");
        new.touch();
        prune(dir.path(), 1);
        assert!(old.tree.exists());
        // A pipe in the place of the file does not block.
        assert!(Command::new("mkfifo").arg(&old.facts).status().unwrap().success());
        old.touch();
        assert!(old.built().is_none());

        process.kill().unwrap();
        process.wait().unwrap();
        fs::create_dir_all(&failed.tree).unwrap();
        new.touch();
        prune(dir.path(), 1);
        let left = |entry: &CacheEntry| entry.dir.exists() || lock_path(&entry.dir).exists();
        assert_eq!([&old, &new, &failed].map(left), [false, true, false]);
        assert!(matches!(old.claim().unwrap(), Claim::Exclusive(_)));
    }
}
