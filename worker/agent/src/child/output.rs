//! Output of rank processes (standard output and standard error), in files of limited size.
//!
//! A log is a stream of bytes with absolute offsets, stored in parts: `<generation>-<process>.log` has the beginning,
//! `<generation>-<process>+<offset>.log` the bytes from `<offset>` on. The last two parts are kept. A reader who asks for
//! dropped bytes gets a line with their number instead.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lockstep_host::access::{make_private_dirs, private};
use lockstep_host::plain;
use tracing::{info, warn};

use super::key::ProcessKey;

/// Bytes read for one answer: well below gRPC's limit for a message, and many screens of text.
const CHUNK_BYTES: u64 = 256 << 10;
/// Bytes of the last output that are reported with a process's end.
const TAIL_BYTES: usize = 4096;

/// The logs of all processes, in one directory.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    dir: PathBuf,
    /// Bytes kept of each process, `log_bytes`.
    limit: u64,
}

/// A piece of a log, as one answer to a reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) text: Vec<u8>,
    pub(crate) next_offset: u64,
    /// Whether the log has no more bytes at present.
    pub(crate) at_end: bool,
}

/// The log of a running process.
#[derive(Debug)]
pub(crate) struct LogWriter {
    dir: PathBuf,
    stem: String,
    part_limit: u64,
    part: File,
    part_begin: u64,
    part_bytes: u64,
    before: Option<u64>,
    /// Bytes that could not be written since the last successful write.
    refused_bytes: u64,
    tail: Vec<u8>,
}

impl Logs {
    /// Logs below `dir`, each of at most `limit` bytes.
    pub(crate) fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit }
    }

    /// Creates the log of `key`, or empties it.
    pub(crate) fn create(&self, key: &ProcessKey) -> io::Result<LogWriter> {
        let dir = self.dir.join(key.run.as_str());
        make_private_dirs(&dir)?;
        let stem = stem(key);
        let part = private().write(true).truncate(true).open(dir.join(part_name(&stem, 0)))?;
        let part_limit = self.limit / 2;
        let (part_begin, part_bytes, before, refused_bytes, tail) = (0, 0, None, 0, Vec::new());
        Ok(LogWriter { dir, stem, part_limit, part, part_begin, part_bytes, before, refused_bytes, tail })
    }

    /// Reads up to 256 KiB from `offset` on. A log that does not exist is empty.
    pub(crate) fn read(&self, key: &ProcessKey, offset: u64) -> io::Result<Chunk> {
        let dir = self.dir.join(key.run.as_str());
        let nothing = Chunk { text: Vec::new(), next_offset: offset, at_end: true };
        let parts = parts(&dir, &stem(key))?;
        let Some(&(oldest, _)) = parts.first() else { return Ok(nothing) };
        let from = offset.max(oldest);
        let Some((begin, path)) = parts.iter().rfind(|&&(begin, _)| begin <= from) else { return Ok(nothing) };
        let file = match plain::open(path) {
            // Dropped since it was listed: the reader asks again, and finds the remaining parts.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Chunk { at_end: false, ..nothing }),
            file => file?,
        };
        let length = file.metadata()?.len();
        let mut text = Vec::new();
        if offset < oldest {
            text = format!("[{} bytes of output were dropped here]\n", oldest - offset).into_bytes();
        }
        let note = text.len();
        let here = length.saturating_sub(from - begin).min(CHUNK_BYTES);
        text.resize(note + here as usize, 0);
        file.read_exact_at(&mut text[note..], from - begin)?;
        let next_offset = from + here;
        let is_last = parts.last().is_some_and(|(last, _)| last == begin);
        Ok(Chunk { text, next_offset, at_end: is_last && next_offset >= begin + length })
    }

    /// Deletes the logs of all runs but the last `keep` and those with a process in `running`. Then deletes the oldest log files, except
    /// those of `running` processes, until all together have at most `total` bytes.
    pub(crate) fn prune(&self, keep: usize, total: u64, running: &BTreeSet<&ProcessKey>) -> io::Result<()> {
        let in_use: BTreeSet<&str> = running.iter().map(|key| key.run.as_str()).collect();
        let mut runs = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|run| !in_use.contains(run)) {
                runs.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        runs.sort();
        let surplus = runs.len().saturating_sub(keep);
        runs[..surplus].iter().try_for_each(|(_, dir)| fs::remove_dir_all(dir))?;
        self.prune_to(total, running)
    }

    fn prune_to(&self, total: u64, running: &BTreeSet<&ProcessKey>) -> io::Result<()> {
        let running: BTreeSet<PathBuf> =
            running.iter().map(|key| self.dir.join(key.run.as_str()).join(stem(key))).collect();
        let (mut bytes, mut files) = (0_u64, Vec::new());
        for run in fs::read_dir(&self.dir)? {
            for part in fs::read_dir(run?.path())? {
                let (part, path) = part.map(|part| (part.metadata(), part.path()))?;
                let part = part?;
                bytes = bytes.saturating_add(part.len());
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let stem = name.split(['+', '.']).next().unwrap_or_default();
                if !running.contains(&path.with_file_name(stem)) {
                    files.push((part.modified()?, part.len(), path));
                }
            }
        }
        files.sort();
        let mut deleted = 0;
        for (_, length, path) in files {
            if bytes <= total {
                break;
            }
            fs::remove_file(path)?;
            (bytes, deleted) = (bytes - length, deleted + 1);
        }
        if deleted > 0 {
            info!(
                deleted,
                "deleted the oldest log files of processes: all together had more than {total} bytes (`log_total_bytes`)"
            );
        }
        Ok(())
    }
}

impl LogWriter {
    /// Appends `bytes`. If that fails, the process continues: the lost bytes are counted, and the next write notes them in the log.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        if let Err(error) = self.append(bytes) {
            if self.refused_bytes == 0 {
                warn!("cannot write the output of a process to `{}`: {error}", self.dir.display());
            }
            self.refused_bytes += bytes.len() as u64;
        }
    }

    /// The last lines of the output, at most 4 KiB.
    pub(crate) fn last_lines(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        match text.split_once('\n') {
            // The first line is incomplete.
            Some((_, rest)) if self.tail.len() == TAIL_BYTES => rest.to_owned(),
            _ => text.into_owned(),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.refused_bytes > 0 {
            let note = format!("[{} bytes of output could not be written]\n", self.refused_bytes);
            self.append_whole(note.as_bytes())?;
            self.refused_bytes = 0;
        }
        self.append_whole(bytes)
    }

    fn append_whole(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.part_bytes >= self.part_limit {
                self.next_part()?;
            }
            let room = (self.part_limit - self.part_bytes).min(bytes.len() as u64);
            let written = self.part.write(&bytes[..room as usize])?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.part_bytes += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn next_part(&mut self) -> io::Result<()> {
        let begin = self.part_begin + self.part_bytes;
        let path = self.dir.join(part_name(&self.stem, begin));
        let part = private().write(true).truncate(true).open(path)?;
        if let Some(before) = self.before.replace(self.part_begin) {
            fs::remove_file(self.dir.join(part_name(&self.stem, before)))?;
        }
        (self.part, self.part_begin, self.part_bytes) = (part, begin, 0);
        Ok(())
    }
}

fn stem(key: &ProcessKey) -> String {
    format!("{}-{}", key.generation, key.process)
}

fn part_name(stem: &str, begin: u64) -> String {
    if begin == 0 { format!("{stem}.log") } else { format!("{stem}+{begin}.log") }
}

/// Offsets and paths of the existing parts of a log, oldest first.
fn parts(dir: &Path, stem: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut parts = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(stem)?.strip_suffix(".log"));
        let begin = match rest {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('+').and_then(|begin| begin.parse().ok()),
            None => None,
        };
        parts.extend(begin.map(|begin| (begin, entry.path())));
    }
    parts.sort();
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(process: u32) -> ProcessKey {
        ProcessKey::new("0123456789", 2, process).unwrap()
    }

    fn read_all(logs: &Logs, key: &ProcessKey, mut offset: u64) -> (String, u64) {
        let mut text = Vec::new();
        loop {
            let chunk = logs.read(key, offset).unwrap();
            assert!(chunk.at_end || chunk.next_offset > offset, "reading must get on");
            text.extend(chunk.text);
            offset = chunk.next_offset;
            if chunk.at_end {
                return (String::from_utf8(text).unwrap(), offset);
            }
        }
    }

    #[test]
    fn a_log_is_read_from_any_offset_while_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 1 << 20);
        assert_eq!(read_all(&logs, &key(1), 0), (String::new(), 0));
        let mut writer = logs.create(&key(1)).unwrap();
        logs.create(&key(11)).unwrap().write(b"another process");
        writer.write(b"one\n");
        assert_eq!(read_all(&logs, &key(1), 0), ("one\n".into(), 4));
        writer.write(b"two\n");
        assert_eq!(read_all(&logs, &key(1), 4), ("two\n".into(), 8));
        assert_eq!(read_all(&logs, &key(1), 99), (String::new(), 99));
        assert_eq!(writer.last_lines(), "one\ntwo\n");
    }

    #[test]
    fn a_long_log_keeps_its_end_and_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 200);
        let mut writer = logs.create(&key(0)).unwrap();
        let lines: Vec<_> = (0..100).map(|line| format!("line {line:04}\n")).collect();
        let whole = lines.concat();
        for bytes in whole.as_bytes().chunks(37) {
            writer.write(bytes);
        }
        let kept: u64 =
            fs::read_dir(dir.path().join("0123456789")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 200, "{kept}");
        let (text, end) = read_all(&logs, &key(0), 0);
        assert_eq!(end, 1000);
        assert_eq!(
            text,
            format!("[{} bytes of output were dropped here]\n{}", 1000 - kept, &whole[1000 - kept as usize..])
        );
        assert_eq!(read_all(&logs, &key(0), 950).0, whole[950..]);
        assert!(whole.ends_with(&writer.last_lines()));
    }

    #[test]
    fn output_that_the_disk_refused_is_counted_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 1 << 20);
        let mut writer = logs.create(&key(0)).unwrap();
        // A file that cannot be written to stands for a full disk.
        let path = dir.path().join("0123456789/2-0.log");
        let good = std::mem::replace(&mut writer.part, File::open(&path).unwrap());
        writer.write(b"lost\n");
        writer.part = good;
        writer.write(b"kept\n");
        assert_eq!(read_all(&logs, &key(0), 0).0, "[5 bytes of output could not be written]\nkept\n");
    }

    #[test]
    fn logs_of_the_oldest_runs_go_unless_they_are_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 1 << 20);
        for (age, run) in ["000000000z", "000000000a", "000000000b", "000000000c"].into_iter().enumerate() {
            logs.create(&ProcessKey::new(run, 1, 0).unwrap()).unwrap();
            let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(100 + age as u64);
            File::open(dir.path().join(run)).unwrap().set_modified(modified).unwrap();
        }
        let running = ProcessKey::new("000000000z", 1, 0).unwrap();
        logs.prune(2, u64::MAX, &BTreeSet::from([&running])).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.len() == 3 && !left.contains(&"000000000a".into()), "{left:?}");
    }

    #[test]
    fn the_oldest_logs_go_until_all_together_are_small_enough_but_none_of_a_running_process() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 400);
        let key = |generation| ProcessKey::new("0123456789", generation, 3).unwrap();
        for generation in 1..=5 {
            // Two parts of 200 bytes.
            logs.create(&key(generation)).unwrap().write(&[b'x'; 400]);
            for (part, path) in parts(&dir.path().join("0123456789"), &stem(&key(generation))).unwrap() {
                let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 * generation + part);
                File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
            }
        }
        let bytes = |generation| {
            let parts = parts(&dir.path().join("0123456789"), &stem(&key(generation))).unwrap();
            parts.iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum::<u64>()
        };
        // 2,000 bytes in all; the first, which is the oldest, runs.
        logs.prune(9, 1_500, &BTreeSet::from([&key(1)])).unwrap();
        assert_eq!([1, 2, 3, 4, 5].map(bytes), [400, 0, 200, 400, 400]);
        assert_eq!(
            read_all(&logs, &key(3), 0).0,
            format!("[200 bytes of output were dropped here]\n{}", "x".repeat(200))
        );
        logs.prune(9, 0, &BTreeSet::from([&key(1)])).unwrap();
        assert_eq!([1, 2, 3, 4, 5].map(bytes), [400, 0, 0, 0, 0]);
    }
}
