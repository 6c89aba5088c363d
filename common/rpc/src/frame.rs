//! Length-delimited messages on a byte stream: four bytes of big-endian length, then the message.

use std::io::{self, Read, Write};

use prost::Message;

/// The longest frame that is read. It limits the memory that a faulty peer can make us allocate.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// Writes one message as a frame and flushes.
pub fn write(to: &mut impl Write, message: &impl Message) -> io::Result<()> {
    to.write_all(&encode(message))?;
    to.flush()
}

/// One message as a frame.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    message.encode(&mut bytes).expect("a Vec grows as needed");
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Reads one message; `None` at the end of the stream between two messages.
///
/// # Errors
/// `InvalidData` for a frame that is too long or does not decode, `UnexpectedEof` if the stream ends inside a frame.
pub fn read<M: Message + Default>(from: &mut impl Read) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        let why = format!("a frame of {length} bytes is too long: at most {MAX_FRAME_BYTES} are possible");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    M::decode(bytes.as_slice()).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
