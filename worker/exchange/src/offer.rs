//! Memory that a process offers to peers on the same machine: a file that they open below `/proc/<pid>/fd`.
//!
//! A peer accepts an offer if it runs under the same kernel and in the same PID namespace, may open the file, and finds the
//! offer's nonce in it. Otherwise the bytes go through the connection, which is slower.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, open, readlink},
    io::Errno,
};

/// Bytes of an offer: host (32), nonce (32), process id (4), file descriptor (4).
pub(crate) const OFFER_BYTES: usize = 72;

/// Stands for no offer.
pub(crate) const NOTHING: [u8; OFFER_BYTES] = [0; OFFER_BYTES];

/// Random value of one offer, also written into its memory.
pub(crate) type MemoryNonce = [u8; 32];

/// Seals that fix the length. Otherwise the owner could shorten the memory, and its readers would be killed by SIGBUS.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Digest that is equal for two processes if they can open each other's files below `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host([u8; 32]);

impl Host {
    /// The digest of this process: of the kernel's boot id and the PID namespace.
    pub(crate) fn this() -> Result<Self, Errno> {
        let mut boot = [0; 64];
        let file = open("/proc/sys/kernel/random/boot_id", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let count = rustix::io::read(&file, &mut boot)?;
        let space = readlink("/proc/self/ns/pid", Vec::new())?;
        let mut hasher = blake3::Hasher::new_derive_key("lockstep exchange host v1");
        hasher.update(&boot[..count]).update(space.to_bytes());
        Ok(Self(*hasher.finalize().as_bytes()))
    }

    /// The digest's bytes, which processes compare.
    pub(crate) fn id(&self) -> [u8; 32] {
        self.0
    }

    /// The offer of `file`, which has `nonce` in its memory. The file must stay open until the peer has answered.
    pub(crate) fn offer(&self, file: &OwnedFd, nonce: &MemoryNonce) -> [u8; OFFER_BYTES] {
        let mut bytes = NOTHING;
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..64].copy_from_slice(nonce);
        bytes[64..68].copy_from_slice(&std::process::id().to_le_bytes());
        bytes[68..].copy_from_slice(&file.as_raw_fd().to_le_bytes());
        bytes
    }

    /// Opens the file that a peer offers, if this process can; with the nonce that the caller must find in the memory.
    pub(crate) fn reach(&self, offer: &[u8; OFFER_BYTES], access: OFlags) -> Option<(OwnedFd, MemoryNonce)> {
        let (there, rest) = offer.split_first_chunk::<32>()?;
        let (nonce, rest) = rest.split_first_chunk::<32>()?;
        let (process, file) = rest.split_first_chunk::<4>()?;
        if *there != self.0 {
            return None;
        }
        let path = format!("/proc/{}/fd/{}", u32::from_le_bytes(*process), i32::from_le_bytes(file.try_into().ok()?));
        // If the peer has died, its process id may belong to another process by now: open nothing but shared memory.
        let target = readlink(path.as_str(), Vec::new()).ok()?;
        if !target.to_bytes().starts_with(b"/memfd:") {
            return None;
        }
        let file = open(path.as_str(), access | OFlags::CLOEXEC, Mode::empty()).ok()?;
        fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)).then_some((file, *nonce))
    }
}

/// Fixes the length of `file` permanently.
pub(crate) fn seal(file: &OwnedFd) -> Result<(), Errno> {
    fcntl_add_seals(file, SEALS)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn file(sealed: bool) -> OwnedFd {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 4096).unwrap();
        if sealed {
            seal(&file).unwrap();
        }
        file
    }

    #[test]
    fn memory_is_reached_on_its_own_host_only_and_only_if_it_cannot_shrink() {
        let host = Host::this().unwrap();
        let memory = file(true);
        let offer = host.offer(&memory, &[5; 32]);
        assert_eq!(host.reach(&offer, OFlags::RDONLY).unwrap().1, [5; 32]);
        assert!(Host([0; 32]).reach(&offer, OFlags::RDONLY).is_none(), "another host");
        assert!(host.reach(&NOTHING, OFlags::RDONLY).is_none(), "no offer");
        let mut other = offer;
        other[68..].copy_from_slice(&0_i32.to_le_bytes());
        assert!(host.reach(&other, OFlags::RDONLY).is_none(), "another kind of file");
        let open_ended = file(false);
        assert!(host.reach(&host.offer(&open_ended, &[5; 32]), OFlags::RDONLY).is_none(), "it could shrink");
        drop(memory);
        assert!(host.reach(&offer, OFlags::RDONLY).is_none(), "withdrawn");
    }
}
