//! Writes a ZIP archive as libtorch does: the bytes of each file begin at a multiple of 64, so that they can be mapped.

use std::io::{self, Read, Write};

use flate2::Crc;

use super::archive::Entry;

/// Where the bytes of a file may begin, as libtorch's writer has it.
const ALIGNED: u64 = 64;
/// UTF-8 names.
const FLAGS: u16 = 1 << 11;

/// Writes one archive, file by file.
#[derive(Debug)]
pub(super) struct Writer<W> {
    to: W,
    at: u64,
    list: Vec<u8>,
    files: u64,
    /// From here on a number is written with 64 bits.
    wide: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W) -> Self {
        Self::with_limit(to, u64::from(u32::MAX))
    }

    pub(super) fn with_limit(to: W, wide: u64) -> Self {
        Self { to, at: 0, list: Vec::new(), files: 0, wide }
    }

    /// Writes a file with the content `bytes`, not packed, under the name and time of `entry`.
    pub(super) fn store(&mut self, entry: &Entry, bytes: &[u8]) -> io::Result<()> {
        let mut crc = Crc::new();
        crc.update(bytes);
        let length = bytes.len() as u64;
        let entry = Entry { method: 0, crc: crc.sum(), packed_bytes: length, bytes: length, ..entry.clone() };
        self.copy(&entry, &mut &bytes[..])
    }

    /// Writes `entry` with the `packed` bytes of another archive.
    pub(super) fn copy(&mut self, entry: &Entry, packed: &mut dyn Read) -> io::Result<()> {
        let offset = self.at;
        let is_wide = entry.bytes >= self.wide || entry.packed_bytes >= self.wide;
        let mut extra = Vec::new();
        if is_wide {
            extra.extend([1_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
            extra.extend([entry.bytes.to_le_bytes(), entry.packed_bytes.to_le_bytes()].concat());
        }
        // The padding is an extra field, too; it has a head of four bytes.
        let begins = offset + 30 + entry.name.len() as u64 + extra.len() as u64 + 4;
        let padding = (begins.next_multiple_of(ALIGNED) - begins) as u16;
        extra.extend([*b"FB", padding.to_le_bytes()].concat());
        extra.resize(extra.len() + usize::from(padding), 0);
        let mut header = b"PK\x03\x04".to_vec();
        header.extend(head(entry, is_wide));
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(entry.name.as_bytes());
        header.extend(&extra);
        self.put(&header)?;
        let copied = io::copy(packed, &mut self.to)?;
        if copied != entry.packed_bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("`{}` is cut", entry.name)));
        }
        self.at += copied;
        self.list(entry, offset, is_wide);
        Ok(())
    }

    /// Writes the list and hands the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let (list, at) = (std::mem::take(&mut self.list), self.at);
        self.put(&list)?;
        let (end, length) = (self.at, list.len() as u64);
        let mut record = b"PK\x06\x06".to_vec();
        record.extend(44_u64.to_le_bytes());
        record.extend([45_u16.to_le_bytes(), 45_u16.to_le_bytes()].concat());
        record.extend([0; 8]);
        for number in [self.files, self.files, length, at] {
            record.extend(number.to_le_bytes());
        }
        record.extend(b"PK\x06\x07\0\0\0\0");
        record.extend(end.to_le_bytes());
        record.extend(1_u32.to_le_bytes());
        record.extend(b"PK\x05\x06\0\0\0\0");
        let files = u16::try_from(self.files).unwrap_or(u16::MAX).to_le_bytes();
        record.extend([files, files].concat());
        for number in [length, at] {
            record.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        record.extend([0; 2]);
        self.put(&record)?;
        Ok(self.to)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Adds a file to the list.
    fn list(&mut self, entry: &Entry, offset: u64, is_wide: bool) {
        let is_far = offset >= self.wide;
        let mut extra = Vec::new();
        if is_wide {
            extra.extend([entry.bytes.to_le_bytes(), entry.packed_bytes.to_le_bytes()].concat());
        }
        if is_far {
            extra.extend(offset.to_le_bytes());
        }
        if !extra.is_empty() {
            let field = [1_u16.to_le_bytes(), (extra.len() as u16).to_le_bytes()].concat();
            extra.splice(0..0, field);
        }
        self.files += 1;
        self.list.extend(b"PK\x01\x02\x2d\0");
        self.list.extend(head(entry, is_wide));
        self.list.extend((extra.len() as u16).to_le_bytes());
        self.list.extend([0; 10]);
        self.list.extend(if is_far { u32::MAX } else { offset as u32 }.to_le_bytes());
        self.list.extend(entry.name.as_bytes());
        self.list.extend(extra);
    }
}

/// What the list and a file's own header both hold, from the needed version up to the length of the name.
fn head(entry: &Entry, is_wide: bool) -> Vec<u8> {
    let narrow = |number: u64| if is_wide { u32::MAX } else { number as u32 };
    let mut head = [45_u16.to_le_bytes(), FLAGS.to_le_bytes(), entry.method.to_le_bytes()].concat();
    head.extend(entry.time);
    for number in [entry.crc, narrow(entry.packed_bytes), narrow(entry.bytes)] {
        head.extend(number.to_le_bytes());
    }
    head.extend((entry.name.len() as u16).to_le_bytes());
    head
}
