//! Comparison of a file with bytes in memory.

use std::fs::File;
use std::io::{self, Read as _};

/// Whether the contents of `file` are `bytes`. The caller has compared the lengths. False if the file cannot be read.
pub(crate) fn are(file: &mut File, bytes: &[u8]) -> bool {
    let mut same = || -> io::Result<bool> {
        let mut buffer = vec![0; (1 << 18).min(bytes.len().max(1))];
        for chunk in bytes.chunks(buffer.len()) {
            let read = fill(file, &mut buffer[..chunk.len()])?;
            if buffer[..read] != *chunk {
                return Ok(false);
            }
        }
        Ok(true)
    };
    same().unwrap_or(false)
}

/// Reads until `buffer` is full or the file ends. Returns the number of bytes.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
