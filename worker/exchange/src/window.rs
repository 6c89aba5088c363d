//! Windows: memory that one process writes, and all processes of the machine read in place.
//!
//! Rounds of the mesh order the accesses: bytes that were written before a round are visible to all processes that have
//! finished it.

use std::{os::fd::OwnedFd, sync::Arc};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, SealFlags, fallocate, fcntl_add_seals, fstat, memfd_create};
use rustix::io::{pread, pwrite};

use crate::offer::{Host, MemoryNonce, OFFER_BYTES, seal};

/// Shared memory of one process; windows of peers are read-only. It stays mapped after its owner has ended.
pub type Window = Arc<MmapRaw>;

/// An own window, and the file that is offered to the peers. The file must stay open until they have answered.
#[derive(Debug)]
pub(crate) struct OfferedWindow {
    pub(crate) window: Window,
    file: OwnedFd,
    nonce: MemoryNonce,
}

impl OfferedWindow {
    /// Creates a window of `length` zero bytes, with the nonce after them in the file. `None` if the system does not give the
    /// memory.
    pub(crate) fn new(length: usize, nonce: MemoryNonce) -> Option<Self> {
        let file = memfd_create("lockstep-window", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).ok()?;
        // Reserve the memory: without it, a lack of memory would kill a process by SIGBUS later.
        fallocate(&file, FallocateFlags::empty(), 0, (length + nonce.len()) as u64).ok()?;
        if pwrite(&file, &nonce, length as u64) != Ok(nonce.len()) {
            return None;
        }
        let window = MmapOptions::new().len(length).map_raw(&file).ok()?;
        // From here on no process can map it for writing.
        fcntl_add_seals(&file, SealFlags::FUTURE_WRITE).ok()?;
        seal(&file).ok()?;
        Some(Self { window: Arc::new(window), file, nonce })
    }

    pub(crate) fn offer(&self, host: &Host) -> [u8; OFFER_BYTES] {
        host.offer(&self.file, &self.nonce)
    }
}

/// Maps the window that a peer offers; `None` if this process cannot open it, or the nonce differs.
pub(crate) fn take(offer: &[u8; OFFER_BYTES], host: &Host) -> Option<Window> {
    let (file, nonce) = host.reach(offer, OFlags::RDONLY)?;
    let mut found = MemoryNonce::default();
    let length = usize::try_from(fstat(&file).ok()?.st_size).ok()?.checked_sub(found.len())?;
    if pread(&file, &mut found, length as u64) != Ok(found.len()) || found != nonce {
        return None;
    }
    Some(Arc::new(MmapOptions::new().len(length).map_raw_read_only(&file).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_taken_with_its_nonce_only_and_never_to_write() {
        let host = Host::this().unwrap();
        let own = OfferedWindow::new(5000, [6; 32]).unwrap();
        let mut offer = own.offer(&host);
        assert_eq!((own.window.len(), take(&offer, &host).unwrap().len()), (5000, 5000));
        let (file, _) = host.reach(&offer, OFlags::RDWR).unwrap();
        assert!(MmapOptions::new().len(5000).map_raw(&file).is_err(), "a peer could write");
        offer[40] ^= 1;
        assert!(take(&offer, &host).is_none(), "another nonce");
    }
}
