//! A lane to a peer on the same machine: there the bytes of a round go through two rings of shared memory, and the
//! connection only carries wake-ups and farewells, and shows that the peer lives.
//!
//! Each process offers every peer a ring to read from. If both take the other's, the pair has a lane; else its bytes stay
//! on the connection.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use crate::{
    offer::{Host, MemoryNonce, OFFER_BYTES},
    ring::{RingReader, RingWriter},
};

/// Both directions of a pair.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) outgoing: RingWriter,
    pub(crate) incoming: RingReader,
}

/// A ring on offer. Its file must stay open until the peer has answered.
#[derive(Debug)]
pub(crate) struct OfferedRing {
    pub(crate) ring: RingWriter,
    file: OwnedFd,
    nonce: MemoryNonce,
}

impl OfferedRing {
    /// `None` if the system has no such memory to give.
    pub(crate) fn new(nonce: MemoryNonce) -> Option<Self> {
        let (ring, file) = RingWriter::create(&nonce).ok()?;
        Some(Self { ring, file, nonce })
    }

    pub(crate) fn offer(&self, host: &Host) -> [u8; OFFER_BYTES] {
        host.offer(&self.file, &self.nonce)
    }
}

/// The ring that a peer offers, if this process can reach it.
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
