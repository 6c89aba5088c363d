//! The header of a frame: 24 bytes before the payload.
//!
//! ```text
//!   0       4          8              16             24
//!   | magic | sequence | length       | note         |  payload ...      (integers little-endian)
//! ```
//!
//! The *note* is a word that the sender adds to each of its rounds. A *farewell* has its own magic and no payload: its sequence is
//! the index of the process at fault, its length the milliseconds of silence (0: the connection broke). A process that gives up
//! sends it to tell its peers which process is at fault. A *wake-up* has neither sequence nor length: on a pair with shared memory
//! it says that bytes moved there.

use std::time::Duration;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 24;

const ROUND_MAGIC: [u8; 4] = *b"LSXR";
const FAREWELL_MAGIC: [u8; 4] = *b"LSXF";
const WAKE_MAGIC: [u8; 4] = *b"LSXW";

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// One direction of a round, followed by `length` payload bytes.
    Round { sequence: u32, length: u64, note: u64 },
    /// The sender leaves because of `process`, which was silent for `silence` or broke its connection (zero).
    Farewell { process: u32, silence: Duration },
    /// Bytes moved in the shared memory.
    Wake,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let (magic, sequence, length, note) = match self {
            Self::Round { sequence, length, note } => (ROUND_MAGIC, sequence, length, note),
            Self::Farewell { process, silence } => {
                (FAREWELL_MAGIC, process, u64::try_from(silence.as_millis()).unwrap_or(u64::MAX), 0)
            }
            Self::Wake => (WAKE_MAGIC, 0, 0, 0),
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&magic);
        bytes[4..8].copy_from_slice(&sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&length.to_le_bytes());
        bytes[16..].copy_from_slice(&note.to_le_bytes());
        bytes
    }

    /// `None` if the magic is unknown.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let [m0, m1, m2, m3, s0, s1, s2, s3, l0, l1, l2, l3, l4, l5, l6, l7, note @ ..] = *bytes;
        let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
        let length = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        let note = u64::from_le_bytes(note);
        match [m0, m1, m2, m3] {
            ROUND_MAGIC => Some(Self::Round { sequence, length, note }),
            FAREWELL_MAGIC => Some(Self::Farewell { process: sequence, silence: Duration::from_millis(length) }),
            WAKE_MAGIC => Some(Self::Wake),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_and_nothing_else_is_one() {
        let round = Header::Round { sequence: 0x0102_0304, length: 0x0506_0708_090a_0b0c, note: 0x1112_1314_1516_1718 };
        let farewell = Header::Farewell { process: 3, silence: Duration::from_millis(1500) };
        let bytes = *b"LSXR\x04\x03\x02\x01\x0c\x0b\x0a\x09\x08\x07\x06\x05\x18\x17\x16\x15\x14\x13\x12\x11";
        assert_eq!(round.encode(), bytes);
        for header in [round, farewell, Header::Wake] {
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
        assert_eq!(Header::decode(b"GET /status HTTP/1.1\r\n\r\n"), None);
    }
}
