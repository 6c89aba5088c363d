//! The ZIP archive that a TorchScript file is: its list of files, and their bytes.
//!
//! Everything is taken from the list at the archive's end, as libtorch does. Checksums are not looked at: whoever hands the file in has
//! verified its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::DeflateDecoder;

use super::error::TorchScriptError;

/// A list of files of more bytes is none of a module: a million files have so many.
const LIST_BYTES: u64 = 128 << 20;
/// The record at the end, with the longest comment.
const END_BYTES: u64 = 22 + 65_535;
const END: [u8; 4] = *b"PK\x05\x06";
const WIDE_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const WIDE_END: [u8; 4] = *b"PK\x06\x06";
const LISTED: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// One file of an archive, as the list has it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) method: u16,
    /// MS-DOS time and date.
    pub(super) time: [u8; 4],
    pub(super) crc: u32,
    /// As it lies in the archive.
    pub(super) packed_bytes: u64,
    pub(super) bytes: u64,
    /// Of its local header.
    pub(super) offset: u64,
}

/// An open archive.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    entries: Vec<Entry>,
    by_name: BTreeMap<String, usize>,
    /// The directory that holds all that libtorch reads.
    root: String,
}

impl Archive {
    /// Opens the file at `path` and reads its list.
    pub(super) fn open(path: &Path) -> Result<Self, TorchScriptError> {
        let mut file = File::open(path).map_err(TorchScriptError::io("read", path))?;
        let Place { at, bytes, files } = list_place(&mut file).map_err(|error| whole(&error))?;
        let list = read_at(&mut file, at, bytes).map_err(|error| whole(&error))?;
        let mut rest = list.as_slice();
        let (mut entries, mut by_name, mut without_case) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        while !rest.is_empty() {
            let entry = entry(&mut rest).map_err(|error| whole(&error))?;
            if by_name.insert(entry.name.clone(), entries.len()).is_some() {
                return Err(TorchScriptError::malformed(&entry.name, "the archive holds it twice"));
            }
            // libtorch takes any of them.
            if !without_case.insert(entry.name.to_ascii_lowercase()) {
                let what = "the archive holds another file whose name differs only in upper and lower case";
                return Err(TorchScriptError::malformed(&entry.name, what));
            }
            entries.push(entry);
        }
        if entries.len() as u64 != files {
            let what = format!("its list has {} files, and its end says {files}", entries.len());
            return Err(TorchScriptError::malformed("archive", what));
        }
        let first = entries.first().and_then(|entry| entry.name.split_once('/'));
        let Some((root, _)) = first.map(|(root, rest)| (root.to_owned(), rest)) else {
            return Err(TorchScriptError::malformed("archive", "its files lie in no directory"));
        };
        Ok(Self { file, entries, by_name, root })
    }

    /// All files, in the order of the list.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The full name of `part`, such as `data.pkl`.
    pub(super) fn name(&self, part: &str) -> String {
        format!("{}/{part}", self.root)
    }

    /// Size of `part` in bytes, if there is such a file.
    pub(super) fn bytes(&self, part: &str) -> Option<u64> {
        self.by_name.get(&self.name(part)).map(|&index| self.entries[index].bytes)
    }

    /// The content of `part`, of at most `limit` bytes.
    pub(super) fn read(&mut self, part: &str, limit: u64) -> Result<Vec<u8>, TorchScriptError> {
        let Some(&index) = self.by_name.get(&self.name(part)) else {
            return Err(TorchScriptError::Missing { part: part.to_owned() });
        };
        let entry = self.entries[index].clone();
        if entry.bytes > limit {
            let what = format!("it has {} bytes, and at most {limit} are read", entry.bytes);
            return Err(TorchScriptError::malformed(part, what));
        }
        let broken = |error: io::Error| TorchScriptError::malformed(part, error.to_string());
        let packed = self.packed(&entry).map_err(broken)?;
        let mut bytes = Vec::new();
        match entry.method {
            STORED => packed.take(entry.bytes).read_to_end(&mut bytes),
            DEFLATED => DeflateDecoder::new(packed).take(entry.bytes.saturating_add(1)).read_to_end(&mut bytes),
            other => {
                return Err(TorchScriptError::malformed(part, format!("it is packed by method {other} of ZIP")));
            }
        }
        .map_err(broken)?;
        if bytes.len() as u64 == entry.bytes {
            return Ok(bytes);
        }
        Err(TorchScriptError::malformed(part, format!("the list says {} bytes, and it has others", entry.bytes)))
    }

    /// The bytes of `entry` as they lie in the archive.
    pub(super) fn packed(&mut self, entry: &Entry) -> io::Result<impl Read + '_> {
        let header = read_at(&mut self.file, entry.offset, 30)?;
        if header[..4] != LOCAL {
            return Err(bad("the list points to no file"));
        }
        let (name, extra) = (u16_at(&header, 26), u16_at(&header, 28));
        self.file.seek(SeekFrom::Current(i64::from(name) + i64::from(extra)))?;
        Ok((&mut self.file).take(entry.packed_bytes))
    }
}

/// An error of the archive as a whole.
fn whole(error: &io::Error) -> TorchScriptError {
    TorchScriptError::malformed("archive", error.to_string())
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn read_at(file: &mut File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(bad("the archive is cut")) }
}

/// Where the list lies.
struct Place {
    at: u64,
    bytes: u64,
    /// Files in it.
    files: u64,
}

/// Finds the list as libtorch does: by the last signature of a record at the end, whatever its comment's length says. One that stands in
/// a comment is refused, for other programs take the record before it.
fn list_place(file: &mut File) -> io::Result<Place> {
    let length = file.metadata()?.len();
    let tail_at = length.saturating_sub(END_BYTES);
    let tail = read_at(file, tail_at, length - tail_at)?;
    let end = (0..(tail.len() + 1).saturating_sub(22)).rev().find(|&at| tail[at..].starts_with(&END));
    let end = end.ok_or_else(|| bad("it is no ZIP archive, or its end is cut"))?;
    if tail.len() - end != 22 + usize::from(u16_at(&tail, end + 20)) {
        return Err(bad("its end is cut, or other bytes follow it"));
    }
    let mut files = u64::from(u16_at(&tail, end + 10));
    let (mut bytes, mut at) = (u64::from(u32_at(&tail, end + 12)), u64::from(u32_at(&tail, end + 16)));
    if let Some(locator) = end.checked_sub(20).filter(|&locator| tail[locator..].starts_with(&WIDE_LOCATOR)) {
        let wide = read_at(file, u64_at(&tail, locator + 8), 56)?;
        if wide[..4] != WIDE_END {
            return Err(bad("the record of its length is no such record"));
        }
        (files, bytes, at) = (u64_at(&wide, 32), u64_at(&wide, 40), u64_at(&wide, 48));
    }
    if bytes > LIST_BYTES.min(length) {
        return Err(bad("its list of files is longer than a module's can be"));
    }
    Ok(Place { at, bytes, files })
}

/// Takes the next entry of the list.
fn entry(rest: &mut &[u8]) -> io::Result<Entry> {
    let head = rest.get(..46).filter(|head| head[..4] == LISTED).ok_or_else(|| bad("its list of files is cut"))?;
    let lengths = [28, 30, 32].map(|at| usize::from(u16_at(head, at)));
    let all = 46 + lengths.iter().sum::<usize>();
    let record = rest.get(..all).ok_or_else(|| bad("its list of files is cut"))?;
    let name = std::str::from_utf8(&record[46..46 + lengths[0]]).map_err(|_| bad("a name in it is not UTF-8"))?;
    if u16_at(head, 8) & 1 != 0 {
        return Err(bad("a file in it is encrypted"));
    }
    let mut entry = Entry {
        name: name.to_owned(),
        method: u16_at(head, 10),
        time: [head[12], head[13], head[14], head[15]],
        crc: u32_at(head, 16),
        packed_bytes: u64::from(u32_at(head, 20)),
        bytes: u64::from(u32_at(head, 24)),
        offset: u64::from(u32_at(head, 42)),
    };
    widen(&mut entry, &record[46 + lengths[0]..46 + lengths[0] + lengths[1]])?;
    *rest = &rest[all..];
    Ok(entry)
}

/// Puts numbers that need more than 32 bits into `entry`, out of its extra fields.
fn widen(entry: &mut Entry, mut extra: &[u8]) -> io::Result<()> {
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + length).ok_or_else(|| bad("an extra field of its list is cut"))?;
        extra = &extra[4 + length..];
        if id != 1 {
            continue;
        }
        let numbers = [&mut entry.bytes, &mut entry.packed_bytes, &mut entry.offset];
        let wanted = numbers.into_iter().filter(|number| **number == u64::from(u32::MAX));
        for (number, bytes) in wanted.zip(field.chunks_exact(8)) {
            *number = u64_at(bytes, 0);
        }
    }
    Ok(())
}
