//! A cache of digests of files. A file with unchanged device, inode, size, modification time and status change time is assumed to be
//! unchanged. The kernel sets the status change time, so no program can set it back.
//!
//! ```text
//! "lockstep stat cache 2\n" | records of 88 bytes | blake3 of all before, 32 bytes
//! record: device, inode, size, mtime (s, ns), ctime (s, ns), each u64 LE | digest
//! ```
//!
//! A damaged or unwritable cache only costs time: files are hashed again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use lockstep_common::Digest;

use crate::durable;

const MAGIC: &[u8] = b"lockstep stat cache 2\n";

/// 64-bit words of a [`Stamp`], including its key.
const WORDS: usize = 7;
const RECORD: usize = WORDS * 8 + 32;

/// The most files in the cache. If new entries exceed it, all older entries are dropped.
const MOST: usize = 1 << 20;

/// Within this time after a change, a second change may leave the file's times unchanged.
const YOUNG: Duration = Duration::from_secs(2);

/// A file that changed within this time before it was hashed is not cached. A write through a memory map updates a file's times only
/// if the page is clean. Linux writes dirty pages to disk after half a minute.
const SETTLED: Duration = Duration::from_mins(1);

/// Identity of a file: device and inode.
type Key = [u64; 2];

/// Identity, size and times of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    key: Key,
    /// Size, then seconds and nanoseconds of the last change of contents and of status.
    words: [u64; WORDS - 2],
}

impl Stamp {
    /// The stamp of a file with this `metadata`.
    pub fn of(metadata: &Metadata) -> Self {
        let words = [
            metadata.size(),
            metadata.mtime() as u64,
            metadata.mtime_nsec() as u64,
            metadata.ctime() as u64,
            metadata.ctime_nsec() as u64,
        ];
        Self { key: [metadata.dev(), metadata.ino()], words }
    }

    /// Size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.words[0]
    }

    /// Whether both stamps belong to the same file: the same inode of the same device.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Whether the file was written to since `earlier`: it is the same file, and its size or modification time changed.
    pub fn is_written_since(&self, earlier: &Self) -> bool {
        self.key == earlier.key && self.words[..3] != earlier.words[..3]
    }

    /// Whether the last change is so long before `now`, the time of this stamp, that every later ordinary write changes the times.
    pub fn is_old(&self, now: SystemTime) -> bool {
        self.is_older(YOUNG, now)
    }

    fn is_older(&self, age: Duration, now: SystemTime) -> bool {
        let [_, contents, _, status, _] = self.words;
        let settled = now.checked_sub(age).and_then(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok());
        settled.is_some_and(|settled| contents.max(status) < settled.as_secs())
    }
}

/// Stamp and digest of each file.
type Files = HashMap<Key, (Stamp, Digest)>;

/// A cache of digests, which is stored in one file.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    /// Entries in the stored cache.
    known: Files,
    news: Mutex<Files>,
    in_memory: OnceLock<HashSet<u64>>,
}

impl StatCache {
    /// Reads the cache at `path`. It is empty if the file does not exist or is damaged.
    pub fn open(path: &Path) -> Self {
        let known = fs::read(path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { path: path.to_owned(), known, news: Mutex::default(), in_memory: OnceLock::new() }
    }

    /// The user's cache, below `$XDG_CACHE_HOME` or `~/.cache`; `None` if neither variable is set.
    pub fn of_user() -> Option<Self> {
        Self::of_user_named("digests")
    }

    /// The user's cache `name`, for digests of another kind.
    pub fn of_user_named(name: &str) -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(Self::open(&cache.join("lockstep").join(name)))
    }

    /// The cached digest of the file at `path`, if the file is unchanged.
    pub fn known(&self, path: &Path) -> Option<Digest> {
        self.get(&Stamp::of(&fs::metadata(path).ok()?))
    }

    /// Caches `digest` for the present state of the file at `path`. The caller began to read the file at `begun`.
    pub fn keep(&self, path: &Path, begun: SystemTime, digest: Digest) {
        if let Ok(metadata) = fs::metadata(path) {
            self.put(Stamp::of(&metadata), begun, digest);
        }
    }

    /// The cached digest of the file with this `stamp`. Entries that were put since the cache was opened are not found.
    pub fn get(&self, stamp: &Stamp) -> Option<Digest> {
        self.known.get(&stamp.key).filter(|(then, _)| then == stamp).map(|(_, digest)| *digest)
    }

    /// Caches a digest of a file whose hashing began at `now`. Files that changed shortly before are not cached, and neither are files
    /// in a file system in memory, where writes through a memory map do not update times.
    pub fn put(&self, stamp: Stamp, now: SystemTime, digest: Digest) {
        if stamp.is_older(SETTLED, now) && !self.in_memory.get_or_init(in_memory).contains(&stamp.key[0]) {
            self.news.lock().unwrap_or_else(PoisonError::into_inner).insert(stamp.key, (stamp, digest));
        }
    }

    /// Writes the cache, if there are new entries. If two processes write at the same time, the new entries of one are lost.
    pub fn save(self) -> io::Result<()> {
        let (mut files, news) = (self.known, self.news.into_inner().unwrap_or_else(PoisonError::into_inner));
        if news.is_empty() {
            return Ok(());
        }
        if files.len() + news.len() > MOST {
            files.clear();
        }
        files.extend(news);
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        durable::write_atomic(&self.path, &encode(&files))
    }
}

/// Devices of file systems in memory, from `/proc/self/mountinfo`.
fn in_memory() -> HashSet<u64> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let device = |line: &str| {
        let (of, kind) = line.split_once(" - ")?;
        let is_memory = matches!(kind.split(' ').next(), Some("tmpfs" | "ramfs"));
        let mounted = of.split(' ').nth(4).filter(|_| is_memory)?;
        Some(fs::metadata(mounted).ok()?.dev())
    };
    mounts.lines().filter_map(device).collect()
}

fn encode(files: &Files) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + files.len() * RECORD + 32);
    bytes.extend_from_slice(MAGIC);
    for (stamp, digest) in files.values() {
        for word in stamp.key.iter().chain(&stamp.words) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(digest.as_bytes());
    }
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Files> {
    let (body, check) = bytes.split_last_chunk::<32>()?;
    let records = body.strip_prefix(MAGIC)?;
    if blake3::hash(body).as_bytes() != check || !records.len().is_multiple_of(RECORD) {
        return None;
    }
    let record = |record: &[u8]| {
        let (words, digest) = record.split_at(WORDS * 8);
        let mut words = words.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let mut next = || words.next().unwrap_or_default();
        let key = [next(), next()];
        let stamp = Stamp { key, words: std::array::from_fn(|_| next()) };
        Some((key, (stamp, Digest::from_bytes(digest.try_into().ok()?))))
    };
    records.chunks_exact(RECORD).map(record).collect()
}

#[cfg(test)]
mod tests {
    use lockstep_common::Domain;

    use super::*;

    fn stamp(path: &Path) -> Stamp {
        Stamp::of(&fs::metadata(path).unwrap())
    }

    #[test]
    fn a_file_is_known_until_anything_about_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, cache) = (dir.path().join("data"), dir.path().join("below/cache"));
        fs::write(&file, "one").unwrap();
        let (before, digest) = (stamp(&file), Domain::Blob.digest(b"one"));
        let later = SystemTime::now() + Duration::from_secs(100);
        let known = StatCache::open(&cache);
        known.put(before, later, digest);
        known.save().unwrap();
        let known = StatCache::open(&cache);
        assert_eq!(known.get(&before), Some(digest));
        // With the same size and the old modification time, only the status change time shows the change.
        std::thread::sleep(Duration::from_millis(20));
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        let after = stamp(&file);
        assert_eq!(
            (after.words[0], after.words[1], after.words[2]),
            (before.words[0], before.words[1], before.words[2])
        );
        assert_eq!(known.get(&after), None);
        fs::remove_file(&file).unwrap();
        fs::write(&file, "one").unwrap();
        assert_eq!(known.get(&stamp(&file)), None, "another file of that name");
    }

    #[test]
    fn a_young_file_is_not_kept_and_a_damaged_cache_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (file, cache) = (dir.path().join("data"), dir.path().join("cache"));
        fs::write(&file, "one").unwrap();
        let known = StatCache::open(&cache);
        // Its pages may still be written to through a memory map, without a change of its times.
        for age in [0, 30] {
            known.put(stamp(&file), SystemTime::now() + Duration::from_secs(age), Domain::Blob.digest(b"one"));
        }
        known.save().unwrap();
        assert!(!cache.exists(), "there was nothing to write");

        let known = StatCache::open(&cache);
        known.put(stamp(&file), SystemTime::now() + Duration::from_secs(100), Domain::Blob.digest(b"one"));
        known.save().unwrap();
        let bytes = fs::read(&cache).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_none() && decode(&bytes[..at]).is_none(), "{at}");
        }
        assert_eq!(decode(&bytes).unwrap().len(), 1);
    }

    #[test]
    fn file_systems_in_memory_are_known() {
        let shared = fs::metadata("/dev/shm").unwrap().dev();
        assert!(in_memory().contains(&shared) && !in_memory().contains(&fs::metadata("/usr").unwrap().dev()));
    }
}
