//! Memory shared with a peer on the same machine: there the bytes of a round go through two rings, and the connection
//! only carries wake-ups and farewells, and shows that the peer lives.
//!
//! Each process offers every peer a ring to read from, by the number of its own open file. A peer takes it if it runs
//! under the same kernel and sees the same process numbers, may open the file, and finds the offer's nonce in it; if
//! both take the other's, the pair has a lane. Else its bytes stay on the connection: nothing but speed is lost.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, open, readlink},
    io::Errno,
};

use crate::ring::{RingNonce, RingReader, RingWriter};

/// Bytes of an offer.
pub(crate) const OFFER_BYTES: usize = 72;

/// Both directions of a pair.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) outgoing: RingWriter,
    pub(crate) incoming: RingReader,
}

/// A ring on offer. Its file must stay open until the peer has answered.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) ring: RingWriter,
    file: OwnedFd,
    nonce: RingNonce,
}

impl Offer {
    /// `None` if the system has no such memory to give.
    pub(crate) fn new(nonce: RingNonce) -> Option<Self> {
        let (ring, file) = RingWriter::create(&nonce).ok()?;
        Some(Self { ring, file, nonce })
    }

    /// What the peer must know: where this is, whose file, which, and how to recognise it.
    pub(crate) fn encode(&self, host: &Host) -> [u8; OFFER_BYTES] {
        let mut bytes = [0; OFFER_BYTES];
        bytes[..32].copy_from_slice(&host.0);
        bytes[32..64].copy_from_slice(&self.nonce);
        bytes[64..68].copy_from_slice(&std::process::id().to_le_bytes());
        bytes[68..].copy_from_slice(&self.file.as_raw_fd().to_le_bytes());
        bytes
    }
}

/// The ring that a peer offers, if this process can reach it. All zeros are no offer.
pub(crate) fn take(offer: &[u8; OFFER_BYTES], host: &Host) -> Option<RingReader> {
    let (there, rest) = offer.split_first_chunk::<32>()?;
    let (nonce, rest) = rest.split_first_chunk::<32>()?;
    let (process, file) = rest.split_first_chunk::<4>()?;
    if *there != host.0 {
        return None;
    }
    let path = format!("/proc/{}/fd/{}", u32::from_le_bytes(*process), i32::from_le_bytes(file.try_into().ok()?));
    // A peer that died meanwhile may have left its numbers to another process: nothing but shared memory is opened.
    let target = readlink(path.as_str(), Vec::new()).ok()?;
    if !target.to_bytes().starts_with(b"/memfd:") {
        return None;
    }
    let file = open(path.as_str(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    RingReader::open(&file, nonce)
}

/// What two processes have in common that can reach each other's files by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host([u8; 32]);

impl Host {
    /// This process's: the kernel's boot and the space of process numbers.
    pub(crate) fn this() -> Result<Self, Errno> {
        let mut boot = [0; 64];
        let file = open("/proc/sys/kernel/random/boot_id", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let count = rustix::io::read(&file, &mut boot)?;
        let space = readlink("/proc/self/ns/pid", Vec::new())?;
        let mut hasher = blake3::Hasher::new_derive_key("lockstep exchange host v1");
        hasher.update(&boot[..count]).update(space.to_bytes());
        Ok(Self(*hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_taken_on_this_host_only_and_only_with_its_nonce() {
        let host = Host::this().unwrap();
        let offer = Offer::new([5; 32]).unwrap();
        let bytes = offer.encode(&host);
        assert!(take(&bytes, &host).is_some());
        assert!(take(&bytes, &Host([0; 32])).is_none(), "another host");
        assert!(take(&[0; OFFER_BYTES], &host).is_none(), "no offer");
        let mut other = bytes;
        other[40] ^= 1;
        assert!(take(&other, &host).is_none(), "another nonce");
        let mut other = bytes;
        other[68..].copy_from_slice(&0_i32.to_le_bytes());
        assert!(take(&other, &host).is_none(), "another kind of file");
        drop(offer);
        assert!(take(&bytes, &host).is_none(), "withdrawn");
    }
}
