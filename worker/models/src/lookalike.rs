//! Recognises files of other formats that a job names instead of a TorchScript module, by their first bytes and their contents.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes at the end of an archive that contain the names of its files.
const TAIL_BYTES: u64 = 1 << 20;

/// The format of the file at `path`, if it is a known one other than TorchScript.
pub(super) fn of(path: &Path) -> Option<&'static str> {
    let (head, tail) = ends(path).ok()?;
    let names = |name: &str| tail.windows(name.len()).any(|part| part == name.as_bytes());
    if head.starts_with(b"PK\x03\x04") {
        // A truncated archive has lost its list of files, so its format is unknown.
        return if names("constants.pkl") || !tail.windows(4).any(|part| part == b"PK\x05\x06") {
            None
        } else if names("models/model.json") || names("serialized_exported_program.json") {
            Some("a program of `torch.export` (`.pt2`)")
        } else if names("data.pkl") {
            Some("a file of `torch.save` (a state_dict, or a module by reference to its Python class)")
        } else {
            Some("a zip archive without a TorchScript module")
        };
    }
    if head.starts_with(b"\x80") {
        return Some("a pickle, or a file of `torch.save` in the form before PyTorch 1.6");
    }
    if head.starts_with(b"\x93NUMPY") {
        return Some("a NumPy array");
    }
    (head.get(8) == Some(&b'{')).then_some("a safetensors file, which has tensors and no code")
}

/// The first and the last bytes of a file.
fn ends(path: &Path) -> io::Result<([u8; 16], Vec<u8>)> {
    let (mut file, mut head, mut tail) = (File::open(path)?, [0; 16], Vec::new());
    let length = file.metadata()?.len();
    let read = file.read(&mut head)?;
    head[read..].fill(0);
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    file.read_to_end(&mut tail)?;
    Ok((head, tail))
}
