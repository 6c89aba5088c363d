//! The framing of event files: length, its checksum, a message, its checksum.
//!
//! Source: `TFRecord`, as `tensorflow/core/lib/io/record_writer` documents it.

use std::io::{self, BufRead, BufReader, Read};

use prost::Message;

/// Bytes before a message.
const HEADER: usize = 12;

/// Bytes of a message at most: an image or a text of a run has 64 MiB. A length alone may say anything.
const LONGEST: u64 = 1 << 28;

/// A CRC-32C as it is stored: rotated and shifted, for a checksum of checksums is weak.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Appends `message` to `file`.
pub(super) fn append(file: &mut Vec<u8>, message: &impl Message) {
    let start = file.len();
    file.extend_from_slice(&(message.encoded_len() as u64).to_le_bytes());
    file.extend_from_slice(&masked(&file[start..]));
    message.encode(file).expect("a vector takes any message");
    file.extend_from_slice(&masked(&file[start + HEADER..]));
}

/// The messages of a file, up to the first one that is not whole: a reader of TensorBoard's ends there too.
pub(super) struct Records<R> {
    file: BufReader<R>,
    /// Bytes of all messages so far, with their frames.
    pub(super) end: u64,
    message: Vec<u8>,
}

impl<R: Read> Records<R> {
    pub(super) fn new(file: R) -> Self {
        Self { file: BufReader::with_capacity(1 << 20, file), end: 0, message: Vec::new() }
    }

    /// The next message.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        if !filled(self.file.read_exact(&mut header))? || header[8..] != masked(&header[..8]) {
            return Ok(None);
        }
        let length = u64::from_le_bytes(*header.first_chunk().expect("the header has twelve bytes"));
        if length > LONGEST {
            return Ok(None);
        }
        self.message.clear();
        let read = self.file.by_ref().take(length).read_to_end(&mut self.message)?;
        let mut checksum = [0; 4];
        if read as u64 != length || !filled(self.file.read_exact(&mut checksum))? || checksum != masked(&self.message) {
            return Ok(None);
        }
        self.end += length + HEADER as u64 + 4;
        Ok(Some(&self.message))
    }
}

/// Whether there was as much as was wanted.
fn filled(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_up_to_the_first_that_is_torn() {
        let mut file = Vec::new();
        append(&mut file, &"first".to_owned());
        let whole = file.len();
        append(&mut file, &"second".to_owned());
        for torn in whole..file.len() {
            let mut records = Records::new(&file[..torn]);
            assert!(records.next().unwrap().unwrap().ends_with(b"first"));
            assert_eq!(records.next().unwrap(), None, "torn at {torn}");
            assert_eq!(records.end, whole as u64);
        }
        for at in [whole + 1, whole + 9, whole + 14, file.len() - 1] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let mut records = Records::new(&*changed);
            records.next().unwrap().unwrap();
            assert_eq!(records.next().unwrap(), None, "changed at {at}");
        }
    }

    #[test]
    fn the_checksum_is_the_masked_one() {
        // CRC-32C of "123456789" is e3069283, as every table of checksums says.
        assert_eq!(masked(b"123456789"), 0xc78a_b0e5_u32.to_le_bytes());
    }
}
