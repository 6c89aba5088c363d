//! Reads a spool that an earlier agent left: keeps the complete reports, and names the lost ones.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_host::plain;
use lockstep_rpc::ProcessMessage;

use super::{DELETED, Reader, Segment, Spool, SpoolError, segment_path};
use crate::child::ProcessKey;

/// Upper limit for the size of the file `deleted`, which holds one number.
const NUMBER_BYTES: u64 = 64;

/// A spool that was read from disk.
pub(crate) struct Recovered {
    pub(crate) spool: Spool,
    /// Lost reports, in their order.
    pub(crate) lost: Vec<Lost>,
    /// The last message of the process, or of its agent.
    pub(crate) last: Option<ProcessMessage>,
}

/// Lost reports of a spool.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The end of a segment: a report whose writing was interrupted, or a damaged report and all that follow it.
    Cut { path: PathBuf, bytes: u64, from: u64 },
    /// Segments whose files are missing; `before` is the first report of the next file.
    Missing { dir: PathBuf, from: u64, before: Option<u64> },
    /// A segment after lost reports. It cannot be sent, because numbers must have no gaps.
    Behind { path: PathBuf, from: u64, bytes: u64 },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { path, bytes, from } => {
                write!(
                    f,
                    "dropped the last {bytes} bytes of `{}`: report {from} is incomplete or damaged",
                    path.display()
                )
            }
            Self::Missing { dir, from, before: Some(before) } => {
                write!(f, "reports {from} to {} are missing: no file in `{}` has them", before - 1, dir.display())
            }
            Self::Missing { dir, from, before: None } => {
                write!(f, "reports from {from} on are missing: no file in `{}` has them", dir.display())
            }
            Self::Behind { path, from, bytes } => {
                write!(
                    f,
                    "deleted `{}` ({bytes} bytes, reports from {from} on): it follows lost reports",
                    path.display()
                )
            }
        }
    }
}

impl Spool {
    /// Reads the spool in `dir`. Everything after the last complete record is dropped, and returned as lost.
    pub(crate) fn recover(dir: PathBuf, key: ProcessKey) -> Result<Recovered, SpoolError> {
        let io = |source| SpoolError::Io { path: dir.clone(), source };
        let firsts = segments_in(&dir).map_err(io)?;
        // Spools of earlier versions have no such file: their missing segments count as acknowledged.
        let deleted = match plain::read(&dir.join(DELETED), NUMBER_BYTES) {
            Ok(text) => String::from_utf8(text).ok().and_then(|text| text.trim().parse::<u64>().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(SpoolError::Io { path: dir.join(DELETED), source }),
        };
        let begin = deleted.map(|last| last.saturating_add(1));
        let mut segments: VecDeque<Segment> = VecDeque::new();
        let (mut lost, mut last, mut is_cut) = (Vec::new(), None, false);
        if let (Some(from), before) = (begin, firsts.first().copied())
            && before.is_none_or(|before| before > from)
        {
            // A process without reports has no file yet.
            if before.is_some() || from > 1 {
                lost.push(Lost::Missing { dir: dir.clone(), from, before });
            }
        }
        for first in firsts {
            let path = segment_path(&dir, first);
            let next = segments.back().map(|before| before.first + before.count);
            if is_cut || next.is_some_and(|next| next != first) {
                if let Some(from) = next.filter(|next| !is_cut && *next < first) {
                    lost.push(Lost::Missing { dir: dir.clone(), from, before: Some(first) });
                }
                is_cut = true;
                let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                fs::remove_file(&path).map_err(|source| SpoolError::Io { path: path.clone(), source })?;
                lost.push(Lost::Behind { path, from: first, bytes });
                continue;
            }
            let (segment, bytes, said) = whole(&path, first)?;
            last = said.or(last);
            is_cut = bytes > 0;
            if is_cut {
                lost.push(Lost::Cut { path, bytes, from: first + segment.count });
            }
            segments.push_back(segment);
        }
        if segments.is_empty() {
            segments.push_back(Segment::empty(begin.unwrap_or(1)));
        }
        Ok(Recovered { spool: Self::new(key, dir, segments), lost, last })
    }
}

/// The numbers of the first reports of the segments in `dir`, in order.
fn segments_in(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".segment")?.parse::<u64>().ok());
        firsts.extend(first.filter(|&first| first > 0));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// The complete records of the segment at `path`, the number of bytes after them, and the last message.
fn whole(path: &Path, first: u64) -> Result<(Segment, u64, Option<ProcessMessage>), SpoolError> {
    let io = |source| SpoolError::Io { path: path.to_owned(), source };
    let file = plain::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut reader = Reader { first, path: path.to_owned(), file, sequence: first, offset: 0 };
    let mut last = None;
    while reader.offset < length {
        match reader.read(length) {
            Ok(report) => last = report.message,
            Err(SpoolError::Corrupt { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    let segment = Segment { count: reader.sequence - first, bytes: reader.offset, ..Segment::empty(first) };
    Ok((segment, length - reader.offset, last))
}
