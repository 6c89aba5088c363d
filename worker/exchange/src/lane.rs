//! A lane to a peer on the same machine: the bytes of a round go through two rings of shared memory. The connection then
//! carries only wake-ups and farewells, and its end shows that the peer is gone.
//!
//! Each process offers its peers a ring to read from. If both processes of a pair accept, they have a lane; otherwise their
//! bytes go through the connection.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use crate::{
    offer::{Host, MemoryNonce, OFFER_BYTES},
    ring::{RingReader, RingWriter},
};

/// The rings of a pair, as one process sees them.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) outgoing: RingWriter,
    pub(crate) incoming: RingReader,
}

/// An own ring, and the file that is offered to a peer. The file must stay open until the peer has answered.
#[derive(Debug)]
pub(crate) struct OfferedRing {
    pub(crate) ring: RingWriter,
    file: OwnedFd,
    nonce: MemoryNonce,
}

impl OfferedRing {
    /// Creates a ring; `None` if the system does not give the memory.
    pub(crate) fn new(nonce: MemoryNonce) -> Option<Self> {
        let (ring, file) = RingWriter::create(&nonce).ok()?;
        Some(Self { ring, file, nonce })
    }

    pub(crate) fn offer(&self, host: &Host) -> [u8; OFFER_BYTES] {
        host.offer(&self.file, &self.nonce)
    }
}

/// Opens the ring that a peer offers; `None` if this process cannot open it, or the nonce differs.
pub(crate) fn take(offer: &[u8; OFFER_BYTES], host: &Host) -> Option<RingReader> {
    let (file, nonce) = host.reach(offer, OFlags::RDWR)?;
    RingReader::open(&file, &nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_taken_with_its_nonce_only() {
        let host = Host::this().unwrap();
        let ring = OfferedRing::new([5; 32]).unwrap();
        let mut offer = ring.offer(&host);
        assert!(take(&offer, &host).is_some());
        offer[40] ^= 1;
        assert!(take(&offer, &host).is_none(), "another nonce");
    }
}
