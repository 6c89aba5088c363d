//! MD5 as DVC takes it, of the bytes of a file.
//!
//! DVC 3 hashes what is there. DVC 2 first turned CRLF into LF in what it held for text, and it judged so anew for every
//! mebibyte that it read: that is repeated here to the letter, flaws included, because its hashes are in people's repositories.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::Digest as _;

/// How much DVC 2 reads, judges and normalises at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// How much of a chunk is looked at to tell text from binary data.
const JUDGED_BYTES: usize = 512;

/// An MD5, which is how DVC names contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Md5([u8; 16]);

impl Md5 {
    /// From 32 hexadecimal digits; `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Of `bytes` as they are.
    pub fn of(bytes: &[u8]) -> Self {
        Self(md5::Md5::digest(bytes).into())
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which DVC wrote a record: it decides how contents are hashed, and where they lie in a cache and in a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// No `hash` in the record: text is hashed with LF for CRLF, and lies at `ab/cdef…`.
    Two,
    /// `hash: md5`: bytes are hashed as they are, and lie at `files/md5/ab/cdef…`.
    Three,
}

impl Generation {
    /// The MD5 that this generation takes of a file.
    pub fn hash_file(self, path: &Path) -> io::Result<Md5> {
        self.hash(File::open(path)?)
    }

    /// The MD5 that this generation takes of all that `from` has.
    pub fn hash(self, mut from: impl Read) -> io::Result<Md5> {
        let mut hasher = md5::Md5::new();
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            from.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                return Ok(Md5(hasher.finalize().into()));
            }
            if self == Self::Two && is_text(&chunk[..chunk.len().min(JUDGED_BYTES)]) {
                dos_to_unix(&mut chunk);
            }
            hasher.update(&chunk);
        }
    }
}

/// Whether DVC 2 holds these bytes for text: no NUL, and at most 30% of them neither printable ASCII nor white space.
fn is_text(block: &[u8]) -> bool {
    let is_plain = |byte: u8| matches!(byte, 32..127 | b'\n' | b'\r' | b'\t' | 0x0c | 0x08);
    let strange = block.iter().filter(|byte| !is_plain(**byte)).count();
    !block.contains(&0) && strange as f64 / block.len().max(1) as f64 <= 0.30
}

/// LF for every CRLF, in place.
fn dos_to_unix(text: &mut Vec<u8>) {
    let mut rest = 0;
    let mut kept = 0;
    while rest < text.len() {
        if text[rest] == b'\r' && text.get(rest + 1) == Some(&b'\n') {
            rest += 1;
        }
        text[kept] = text[rest];
        kept += 1;
        rest += 1;
    }
    text.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(bytes: &[u8]) -> String {
        Generation::Two.hash(bytes).unwrap().to_string()
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        let text = "b026324c6904b2a9cb4b88d6d61c81d1";
        assert_eq!(Md5::from_hex(text), Some(Md5::of(b"1\n")));
        assert_eq!(Md5::of(b"1\n").to_string(), text);
        assert_eq!(Md5::from_hex(&text.to_uppercase()), Md5::from_hex(text));
        for wrong in [
            "",
            "b0",
            "b026324c6904b2a9cb4b88d6d61c81d1.dir",
            "+026324c6904b2a9cb4b88d6d61c81d1",
            "ü26324c6904b2a9cb4b88d6d61c81d1",
        ] {
            assert_eq!(Md5::from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn dvc_3_hashes_bytes_and_dvc_2_normalises_text() {
        assert_eq!(Generation::Three.hash(&b"a\r\nb\r\n"[..]).unwrap(), Md5::of(b"a\r\nb\r\n"));
        assert_eq!(two(b"a\r\nb\r\n"), Md5::of(b"a\nb\n").to_string());
        assert_eq!(two(b"a\r\r\n\r"), Md5::of(b"a\r\n\r").to_string());
        assert_eq!(two(b""), Md5::of(b"").to_string());
        assert_eq!(two(b"\0\r\n"), Md5::of(b"\0\r\n").to_string(), "a NUL makes it binary");
        // 3 of 10 strange bytes are text, 3 of 9 are not.
        assert_eq!(two(b"\x80\x80\x80abcde\r\n"), Md5::of(b"\x80\x80\x80abcde\n").to_string());
        assert_eq!(two(b"\x80\x80\x80abcd\r\n"), Md5::of(b"\x80\x80\x80abcd\r\n").to_string());
    }

    #[test]
    fn dvc_2_judges_every_mebibyte_by_itself() {
        // The CR is the last byte of the first chunk, so DVC does not see the pair; the second chunk is binary.
        let mut bytes = vec![b'a'; CHUNK_BYTES - 1];
        bytes.extend_from_slice(b"\r\n\0\r\n");
        assert_eq!(two(&bytes), Md5::of(&bytes).to_string());
        let mut bytes = vec![b'a'; CHUNK_BYTES];
        bytes.extend_from_slice(b"x\r\n");
        let mut unix = vec![b'a'; CHUNK_BYTES];
        unix.extend_from_slice(b"x\n");
        assert_eq!(two(&bytes), Md5::of(&unix).to_string());
    }
}
