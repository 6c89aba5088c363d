//! The reserve: bytes that uploads leave free on the disk of the coordinator's database. On a full disk the coordinator would stop, and
//! could not start again until somebody makes room.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::statvfs;
use tonic::Status;

/// At most one tenth of the disk is reserved.
const OF_DISK: u64 = 10;

/// The reserve. Clones share its count of bytes that are being written.
#[derive(Clone, Debug)]
pub(crate) struct Reserve {
    store: PathBuf,
    data_dir: PathBuf,
    bytes: u64,
    of_disk: u64,
    /// Bytes of current writes, which the file system may not have subtracted from its free space yet.
    writing: Arc<AtomicU64>,
}

/// Room for a current write. Dropping it releases the room.
#[derive(Debug)]
pub(super) struct Room<'a> {
    writing: &'a AtomicU64,
    bytes: u64,
}

/// Size and free space of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
struct Disk {
    size: u64,
    free: u64,
}

impl Reserve {
    /// Reserves `bytes`, or a tenth of the disk if that is less, on the disk of `data_dir`. 0: no reserve.
    pub(crate) fn new(store: &Path, data_dir: &Path, bytes: u64) -> Self {
        let (store, data_dir) = (store.to_owned(), data_dir.to_owned());
        Self { store, data_dir, bytes, of_disk: OF_DISK, writing: Arc::default() }
    }

    /// Reserves the whole disk.
    #[cfg(test)]
    pub(super) fn whole(store: &Path, data_dir: &Path) -> Self {
        Self { of_disk: 1, ..Self::new(store, data_dir, u64::MAX) }
    }

    /// Room for a write of `bytes` to the store. Blocks on the file system.
    ///
    /// # Errors
    /// `ResourceExhausted`, with the free and the reserved space.
    pub(super) fn room(&self, bytes: u64) -> Result<Room<'_>, Status> {
        let writing = self.writing.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        let room = Room { writing: &self.writing, bytes };
        if self.bytes == 0 {
            return Ok(room);
        }
        // If the free space is unknown, the write itself reports errors of the disk.
        let Ok(Some(disk)) = self.disk() else { return Ok(room) };
        let reserved = self.bytes.min(disk.size / self.of_disk);
        if disk.free >= reserved.saturating_add(writing) {
            return Ok(room);
        }
        Err(Status::resource_exhausted(format!(
            "the disk of the store `{}` is almost full: {} MB are free, and {} MB are reserved for the coordinator's own log on it. \
             Delete files there, set `store.path` to another disk, or lower `limits.disk_reserve` (coordinator.toml)",
            self.store.display(),
            disk.free / 1_000_000,
            reserved.div_ceil(1_000_000)
        )))
    }

    /// The store's disk; `None` if the data directory is on another one.
    fn disk(&self) -> io::Result<Option<Disk>> {
        if self.store.metadata()?.dev() != self.data_dir.metadata()?.dev() {
            return Ok(None);
        }
        let stat = statvfs(&self.store)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Some(Disk { size: bytes(stat.f_blocks), free: bytes(stat.f_bavail) }))
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.writing.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn uploads_leave_the_reserve_and_count_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let none = Reserve::new(dir.path(), dir.path(), 0);
        drop(none.room(u64::MAX / 2).unwrap());
        // One byte of the disk is reserved.
        let one = Reserve::new(dir.path(), dir.path(), 1);
        let half = one.disk().unwrap().unwrap().free / 10 * 6;
        let first = one.room(half).unwrap();
        let refused = one.room(half).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains(" MB are free, and 1 MB are reserved"), "{}", refused.message());
        drop(first);
        drop(one.room(half).unwrap());
        let whole = Reserve::whole(dir.path(), dir.path());
        assert_eq!(whole.room(1).unwrap_err().code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_store_on_a_disk_of_its_own_and_one_that_cannot_be_asked_have_no_reserve() {
        let dir = tempfile::tempdir().unwrap();
        drop(Reserve::whole(dir.path(), Path::new("/proc")).room(1).unwrap());
        drop(Reserve::whole(&dir.path().join("none"), dir.path()).room(1).unwrap());
    }
}
