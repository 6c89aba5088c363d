//! Digests of files that were hashed before. A file whose device, inode, size and both times are as they were then is taken
//! to have the contents that it had; the time of its last status change is the kernel's, and no program sets it back.
//!
//! ```text
//! "lockstep stat cache 2\n" | records of 88 bytes | blake3 of all before, 32 bytes
//! record: device, inode, size, mtime (s, ns), ctime (s, ns), each u64 LE | digest
//! ```
//!
//! A cache, and no more: one that is damaged, or cannot be written, costs time.

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

/// Words of a [`Stamp`] with its key.
const WORDS: usize = 7;
const RECORD: usize = WORDS * 8 + 32;

/// Files that are kept; with more, those of earlier times are dropped.
const MOST: usize = 1 << 20;

/// A file that changed less than this before it was hashed may change again without its times showing it.
const YOUNG: Duration = Duration::from_secs(2);

/// A file that changed less than this before it was hashed is not kept. A write through a mapping moves a file's times only if the page
/// had no other write since the last was brought to the disk, which Linux does after half a minute.
const SETTLED: Duration = Duration::from_mins(1);

/// Which file: device and inode.
type Key = [u64; 2];

/// What the system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    key: Key,
    /// Size, then seconds and nanoseconds of the last change of contents and of status.
    words: [u64; WORDS - 2],
}

impl Stamp {
    /// Of a file of which the system says this.
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

    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        self.words[0]
    }

    /// Whether both are of one file: one inode of one device.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Whether somebody wrote to the file after it was like `earlier`: its size or the time of its contents is another one.
    pub fn is_written_since(&self, earlier: &Self) -> bool {
        self.key == earlier.key && self.words[..3] != earlier.words[..3]
    }

    /// Whether its times show every change by ordinary writes after it was looked at, at `now`.
    pub fn is_old(&self, now: SystemTime) -> bool {
        self.is_older(YOUNG, now)
    }

    fn is_older(&self, age: Duration, now: SystemTime) -> bool {
        let [_, contents, _, status, _] = self.words;
        let settled = now.checked_sub(age).and_then(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok());
        settled.is_some_and(|settled| contents.max(status) < settled.as_secs())
    }
}

/// What a file was like, and its digest then.
type Files = HashMap<Key, (Stamp, Digest)>;

/// A cache in a file.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    /// As the file has it.
    known: Files,
    news: Mutex<Files>,
    in_memory: OnceLock<HashSet<u64>>,
}

impl StatCache {
    /// The one at `path`; an empty one if there is none, or none that can be read.
    pub fn open(path: &Path) -> Self {
        let known = fs::read(path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { path: path.to_owned(), known, news: Mutex::default(), in_memory: OnceLock::new() }
    }

    /// The user's: below `$XDG_CACHE_HOME` or `~/.cache`; none without a home.
    pub fn of_user() -> Option<Self> {
        Self::of_user_named("digests")
    }

    /// Another one beside it, for digests of another kind.
    pub fn of_user_named(name: &str) -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(Self::open(&cache.join("lockstep").join(name)))
    }

    /// What was kept of the file at `path`, if it is as it was then.
    pub fn known(&self, path: &Path) -> Option<Digest> {
        self.get(&Stamp::of(&fs::metadata(path).ok()?))
    }

    /// Keeps `digest` for the file at `path` as it is, which somebody began to read at `begun`.
    pub fn keep(&self, path: &Path, begun: SystemTime, digest: Digest) {
        if let Ok(metadata) = fs::metadata(path) {
            self.put(Stamp::of(&metadata), begun, digest);
        }
    }

    /// The digest of a file that is as it was when it was hashed, before this was opened.
    pub fn get(&self, stamp: &Stamp) -> Option<Digest> {
        self.known.get(&stamp.key).filter(|(then, _)| then == stamp).map(|(_, digest)| *digest)
    }

    /// Keeps a digest, unless the file was too young at `now`, when its hashing began, or lies in memory, where a mapping moves no times.
    pub fn put(&self, stamp: Stamp, now: SystemTime, digest: Digest) {
        if stamp.is_older(SETTLED, now) && !self.in_memory.get_or_init(in_memory).contains(&stamp.key[0]) {
            self.news.lock().unwrap_or_else(PoisonError::into_inner).insert(stamp.key, (stamp, digest));
        }
    }

    /// Writes it, if anything is new. Of two that write at the same time, one's news are lost.
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

/// The devices of file systems in memory, as the system lists them.
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
        // The same size, and the time of its contents set back: the status' time tells.
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
        // Its pages may still be written to through a mapping, and its times show nothing of that.
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
