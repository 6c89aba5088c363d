//! The reports of one process, numbered and on disk until the coordinator has acknowledged them.
//!
//! A spool is a directory of segments, each a file `<first sequence number>.segment` of records: length (`u32`,
//! little-endian), blake3 of the payload, payload (a `Report`). Appends go to the last segment. A segment whose reports
//! are all acknowledged is deleted, except the last one, so that the numbering survives a restart of the agent. The file
//! `deleted` has the number of the last deleted report: it tells deleted segments from lost ones.
//! Memory holds one entry for each segment, whatever the backlog: reports are read back from the disk to be sent.
//!
//! A spool has a size limit. Above it, telemetry is dropped, oldest segment first, and counted in the reports that had it.
//! Other reports are never dropped, whatever the limit.
//!
//! Appends are not synced. They survive a crash of the agent, but not a power failure. A power failure ends the agent's
//! incarnation, and so the generation, and the coordinator has confirmed nothing that it has not acknowledged.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lockstep_common::{Domain, chain};
use lockstep_host::access::{make_private_dirs, private};
use lockstep_host::plain;
use lockstep_rpc::frame::MAX_FRAME_BYTES;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{ProcessMessage, Report};
use prost::Message;
use prost::bytes::Bytes;
use tracing::warn;

use crate::child::ProcessKey;

mod recovery;

pub(crate) use recovery::Recovered;

/// Length from which on a segment is not appended to. Limits the bytes that stay on disk when all reports are acknowledged.
const SEGMENT_BYTES: u64 = 4 << 20;
const HEADER_BYTES: u64 = 4 + 32;
/// The longest payload: the longest message of a process, and the fields that name the process.
const MAX_PAYLOAD_BYTES: u64 = MAX_FRAME_BYTES as u64 + 4096;

/// The file with the number of the last report whose segment was deleted.
const DELETED: &str = "deleted";

/// A failed operation on a spool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("cannot use spool file `{}`", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("spool file `{}` is damaged at byte {offset}: {detail}", path.display())]
    Corrupt { path: PathBuf, offset: u64, detail: &'static str },
}

/// The spool of one process.
#[derive(Debug)]
pub(crate) struct Spool {
    key: ProcessKey,
    dir: PathBuf,
    /// Ordered, without gaps; never empty.
    segments: VecDeque<Segment>,
    /// Open file of the last segment, once this agent has written to it.
    tail: Option<File>,
    /// Number of the last acknowledged report; 0: none.
    acknowledged: u64,
    /// Number of the next report to send.
    unsent: u64,
    reader: Option<Reader>,
    /// Bytes above which telemetry is dropped.
    bound: u64,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    count: u64,
    /// Length of its complete records; the file may be longer by an incomplete one.
    bytes: u64,
    /// Whether its telemetry was dropped.
    telemetry_dropped: bool,
}

impl Segment {
    fn empty(first: u64) -> Self {
        Self { first, count: 0, bytes: 0, telemetry_dropped: false }
    }
}

/// A position in a segment, which begins with report `first`: the next record is report `sequence`.
#[derive(Debug)]
struct Reader {
    first: u64,
    path: PathBuf,
    file: File,
    sequence: u64,
    offset: u64,
}

impl Spool {
    /// Creates a spool in `dir`, which must not have one.
    pub(crate) fn create(dir: PathBuf, key: ProcessKey) -> Result<Self, SpoolError> {
        make_private_dirs(&dir).map_err(|source| SpoolError::Io { path: dir.clone(), source })?;
        let spool = Self::new(key, dir, VecDeque::from([Segment::empty(1)]));
        spool.note_deleted(0)?;
        Ok(spool)
    }

    /// A spool of `segments`, at least one. All reports before them count as acknowledged.
    fn new(key: ProcessKey, dir: PathBuf, segments: VecDeque<Segment>) -> Self {
        let first = segments.front().map_or(1, |segment| segment.first);
        let (acknowledged, unsent, bound) = (first - 1, first, u64::MAX);
        Self { key, dir, segments, tail: None, acknowledged, unsent, reader: None, bound }
    }

    /// Records that the segments up to report `sequence` are deleted on purpose, and not lost.
    fn note_deleted(&self, sequence: u64) -> Result<(), SpoolError> {
        let path = self.dir.join(DELETED);
        let fresh = path.with_extension("fresh");
        let written = write(&fresh, format!("{sequence}\n").as_bytes()).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|source| SpoolError::Io { path, source })
    }

    /// Sets the size limit above which telemetry is dropped.
    pub(crate) fn bounded(self, bytes: u64) -> Self {
        Self { bound: bytes, ..self }
    }

    /// Numbers `message` and writes it. After an error nothing was appended, and the caller may retry.
    pub(crate) fn append(&mut self, message: ProcessMessage) -> Result<(), SpoolError> {
        if self.last().bytes >= SEGMENT_BYTES {
            let first = self.next_sequence();
            self.segments.push_back(Segment::empty(first));
            self.tail = None;
            self.drop_telemetry();
        }
        let report = Report {
            run: self.key.run.to_string(),
            generation: self.key.generation,
            process: self.key.process,
            sequence: self.next_sequence(),
            message: Some(message),
        };
        let record = record(&report);
        let (first, at) = (self.last().first, self.last().bytes);
        let path = segment_path(&self.dir, first);
        let written = self.tail(&path).and_then(|file| {
            // Overwrites the incomplete record of a failed attempt: `at` counts complete records only.
            file.write_all_at(&record, at)?;
            file.set_len(at + record.len() as u64)
        });
        written.map_err(|source| SpoolError::Io { path, source })?;
        let segment = self.segments.back_mut().expect("a spool has a segment");
        segment.count += 1;
        segment.bytes += record.len() as u64;
        Ok(())
    }

    /// Drops the telemetry of the oldest segments until the spool is within its limit. The last segment is left as it is.
    fn drop_telemetry(&mut self) {
        let waiting = |spool: &Self| spool.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        let last = self.segments.len() - 1;
        for index in 0..last {
            if waiting(self) <= self.bound {
                return;
            }
            if self.segments[index].telemetry_dropped {
                continue;
            }
            match self.drop_telemetry_of(index) {
                Ok(values) => {
                    warn!(
                        values,
                        "telemetry is dropped: the spool of {} has more than {} bytes (`spool_bytes`)",
                        self.key,
                        self.bound
                    );
                }
                Err(error) => {
                    warn!(error = chain(&error), "cannot drop telemetry from the full spool of {}", self.key);
                }
            }
        }
    }

    /// Rewrites a segment without its telemetry; returns the number of dropped values. Its reports keep their numbers.
    fn drop_telemetry_of(&mut self, index: usize) -> Result<u64, SpoolError> {
        let Segment { first, count, bytes, .. } = self.segments[index];
        let path = segment_path(&self.dir, first);
        let io = |source| SpoolError::Io { path: path.clone(), source };
        let file = plain::open(&path).map_err(io)?;
        let mut reader = Reader { first, path: path.clone(), file, sequence: first, offset: 0 };
        let (mut kept, mut values) = (Vec::new(), 0_u64);
        for _ in 0..count {
            let mut report = reader.read(bytes)?;
            if let Some(Body::Block(block)) = report.message.as_mut().and_then(|message| message.body.as_mut()) {
                values = block.drop_telemetry().saturating_add(values);
            }
            kept.extend_from_slice(&record(&report));
        }
        let fresh = path.with_extension("fresh");
        write(&fresh, &kept).and_then(|()| fs::rename(&fresh, &path)).map_err(io)?;
        let segment = &mut self.segments[index];
        (segment.bytes, segment.telemetry_dropped) = (kept.len() as u64, true);
        // The reader may have the replaced file open.
        self.reader = None;
        Ok(values)
    }

    /// The next report to send, if there is one.
    ///
    /// # Errors
    /// `Corrupt` if the file does not have the bytes that were written. That report is lost: see [`Spool::skip`].
    pub(crate) fn next_unsent(&mut self) -> Result<Option<Report>, SpoolError> {
        if !self.has_unsent() {
            return Ok(None);
        }
        let wanted = self.unsent;
        let segment =
            self.segments.iter().find(|segment| (segment.first..segment.first + segment.count).contains(&wanted));
        let (first, bytes) =
            segment.map(|segment| (segment.first, segment.bytes)).expect("unsent reports are in a segment");
        if self.reader.as_ref().is_none_or(|reader| reader.first != first || reader.sequence > wanted) {
            let path = segment_path(&self.dir, first);
            let file = plain::open(&path).map_err(|source| SpoolError::Io { path: path.clone(), source })?;
            self.reader = Some(Reader { first, path, file, sequence: first, offset: 0 });
        }
        let reader = self.reader.as_mut().expect("set above");
        loop {
            let report = reader.read(bytes)?;
            if report.sequence == wanted {
                self.unsent += 1;
                return Ok(Some(report));
            }
        }
    }

    /// Replaces the next unsent report, which cannot be read, by the message `instead` under the same number.
    pub(crate) fn skip(&mut self, instead: ProcessMessage) -> Report {
        let sequence = self.unsent;
        self.unsent += 1;
        self.reader = None;
        let ProcessKey { run, generation, process } = self.key.clone();
        Report { run: run.into(), generation, process, sequence, message: Some(instead) }
    }

    /// Marks all unacknowledged reports as unsent, for a new stream.
    pub(crate) fn rewind(&mut self) {
        self.unsent = self.acknowledged + 1;
    }

    /// Notes that the coordinator has all reports up to `sequence`, and deletes their segments. Numbers beyond the last report are ignored.
    pub(crate) fn acknowledge(&mut self, sequence: u64) -> Result<(), SpoolError> {
        self.acknowledged = self.acknowledged.max(sequence.min(self.next_sequence() - 1));
        self.unsent = self.unsent.max(self.acknowledged + 1);
        while let [oldest, _, ..] = self.segments.make_contiguous()
            && oldest.first + oldest.count <= self.acknowledged + 1
        {
            let (path, last) = (segment_path(&self.dir, oldest.first), oldest.first + oldest.count - 1);
            if self.note_deleted(last).is_err() {
                // The segment is deleted even if a full disk takes no note. Without the file, no segment counts as lost.
                fs::remove_file(self.dir.join(DELETED)).ok();
            }
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(SpoolError::Io { path, source }),
                _ => self.segments.pop_front(),
            };
        }
        Ok(())
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent < self.next_sequence()
    }

    /// Whether the coordinator has acknowledged all reports.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.acknowledged + 1 == self.next_sequence()
    }

    /// Deletes the spool's directory.
    pub(crate) fn remove(self) -> Result<(), SpoolError> {
        fs::remove_dir_all(&self.dir).map_err(|source| SpoolError::Io { path: self.dir.clone(), source })
    }

    fn last(&self) -> &Segment {
        self.segments.back().expect("a spool has a segment")
    }

    fn next_sequence(&self) -> u64 {
        self.last().first + self.last().count
    }

    fn tail(&mut self, path: &Path) -> io::Result<&File> {
        if self.tail.is_none() {
            self.tail = Some(private().write(true).truncate(false).open(path)?);
        }
        Ok(self.tail.as_ref().expect("set above"))
    }
}

impl Reader {
    /// Reads one record, which must end within the first `length` bytes.
    fn read(&mut self, length: u64) -> Result<Report, SpoolError> {
        let corrupt = |detail| SpoolError::Corrupt { path: self.path.clone(), offset: self.offset, detail };
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => corrupt("it ends within a record"),
            _ => SpoolError::Io { path: self.path.clone(), source },
        };
        if self.offset + HEADER_BYTES > length {
            return Err(corrupt("it ends within a record"));
        }
        let mut header = [0; HEADER_BYTES as usize];
        self.file.read_exact_at(&mut header, self.offset).map_err(io)?;
        let (size, digest) = header.split_first_chunk::<4>().expect("a header is longer");
        let size = u64::from(u32::from_le_bytes(*size));
        let end = self.offset + HEADER_BYTES + size;
        if size > MAX_PAYLOAD_BYTES || end > length {
            return Err(corrupt("it ends within a record"));
        }
        let mut payload = vec![0; size as usize];
        self.file.read_exact_at(&mut payload, self.offset + HEADER_BYTES).map_err(io)?;
        if Domain::Blob.digest(&payload).as_bytes() != digest {
            return Err(corrupt("the digest of a record does not match"));
        }
        // A block is not copied: it refers to these bytes.
        let report = Report::decode(Bytes::from(payload)).map_err(|_| corrupt("a record is not a report"))?;
        if report.sequence != self.sequence {
            return Err(corrupt("a record is out of sequence"));
        }
        self.sequence += 1;
        self.offset = end;
        Ok(report)
    }
}

/// A report as it is written: header and payload.
fn record(report: &Report) -> Vec<u8> {
    let payload = report.encode_to_vec();
    let mut record = Vec::with_capacity(HEADER_BYTES as usize + payload.len());
    record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    record.extend_from_slice(Domain::Blob.digest(&payload).as_bytes());
    record.extend_from_slice(&payload);
    record
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    private().write(true).truncate(true).open(path)?.write_all(bytes)
}

fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.segment"))
}

#[cfg(test)]
mod tests;
