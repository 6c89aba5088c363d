//! Hashes the contents of files in chunks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::progress;

/// Bytes that are read and hashed at a time.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// Hashes `file` on all cores, by plain reads. With a memory map, a bad sector or a truncated file would end the process with SIGBUS
/// (I11).
pub fn hash_read(file: &File, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let length = file.metadata()?.len().clamp(1, CHUNK_BYTES as u64);
    let (mut chunk, mut at) = (vec![0; length as usize], 0);
    loop {
        let read = match file.read_at(&mut chunk, at) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update_rayon(&chunk[..read]);
        progress::advance();
        at += read as u64;
    }
}
