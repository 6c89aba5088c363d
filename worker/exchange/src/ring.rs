//! A ring of bytes in memory that two processes share: one writes, the other reads, neither waits.
//!
//! ```text
//!   0        128       256     384              512              4096
//!   | nonce  | written | read  | reader sleeps  | writer sleeps  | CAPACITY bytes, byte `n` at `n % CAPACITY`
//! ```
//!
//! `written` and `read` count all bytes since the start; only the writer changes `written`, only the reader `read`. A side
//! that is about to sleep sets its flag, and then checks the counters once more. The other side clears the flag after it has
//! moved bytes, and must then wake the sleeper by other means. The fences make sure that at least one of them sees the other.
//! Hot: no system call.
#![expect(unsafe_code, reason = "another process writes this memory, which no safe type expresses")]

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::OwnedFd,
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fstat, memfd_create};

use crate::offer::{MemoryNonce, seal};

/// Payload bytes that the ring holds. A larger ring does not fit into the processor's caches; with a smaller one both sides
/// wait for each other more often.
const CAPACITY: usize = 1 << 20;

/// At most so many bytes are moved before the counter is updated, so that both sides work at the same time.
const STRIDE: usize = CAPACITY / 4;

const WRITTEN: usize = 128;
const READ: usize = 256;
const READER_SLEEPS: usize = 384;
const WRITER_SLEEPS: usize = 512;
const DATA: usize = 4096;
const LENGTH: usize = DATA + CAPACITY;

/// The ring's memory as one side has mapped it.
#[derive(Debug)]
struct Memory(MmapRaw);

impl Memory {
    fn map(file: &OwnedFd) -> io::Result<Self> {
        Ok(Self(MmapOptions::new().len(LENGTH).map_raw(file)?))
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the mapping is LENGTH bytes long, begins at a page and lives as long as `self`; `offset` is one of the
        // constants above, aligned to 8; both processes access the place as an atomic only.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(offset).cast()) }
    }

    fn flag(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `counter`.
        unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().add(offset).cast()) }
    }

    /// Calls `copy` for one or two contiguous stretches of the ring, `count` bytes from `position` on: with the address, the
    /// offset in the `count` bytes, and the length.
    fn stretches(&self, position: u64, count: usize, mut copy: impl FnMut(*mut u8, usize, usize)) {
        debug_assert!(count <= CAPACITY, "{count}");
        let start = position as usize % CAPACITY;
        let first = count.min(CAPACITY - start);
        // SAFETY: `start < CAPACITY`, and the mapping has CAPACITY bytes from DATA on.
        copy(unsafe { self.0.as_mut_ptr().add(DATA + start) }, 0, first);
        if count > first {
            // SAFETY: as before.
            copy(unsafe { self.0.as_mut_ptr().add(DATA) }, first, count - first);
        }
    }
}

/// The counters contradict each other: the other side broke the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// The writing side, which created the ring.
#[derive(Debug)]
pub(crate) struct RingWriter {
    memory: Memory,
    written: u64,
}

impl RingWriter {
    /// Creates a ring with `nonce` in its memory, and the file by which the reader opens it.
    pub(crate) fn create(nonce: &MemoryNonce) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create("lockstep-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // Reserve the memory: without it, a lack of memory would kill the process by SIGBUS in a step.
        fallocate(&file, FallocateFlags::empty(), 0, LENGTH as u64)?;
        seal(&file)?;
        let memory = Memory::map(&file)?;
        // SAFETY: nobody else has the mapping yet, and it is longer than the nonce.
        unsafe { ptr::copy_nonoverlapping(nonce.as_ptr(), memory.0.as_mut_ptr(), nonce.len()) };
        Ok((Self { memory, written: 0 }, file))
    }

    fn space(&self) -> Result<usize, Corrupt> {
        let unread = self.written.wrapping_sub(self.memory.counter(READ).load(Ordering::Acquire));
        CAPACITY.checked_sub(usize::try_from(unread).map_err(|_| Corrupt)?).ok_or(Corrupt)
    }

    /// Writes as much of the parts as fits, one after another. Returns the number of bytes, and whether the reader must be woken.
    pub(crate) fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<(usize, bool), Corrupt> {
        let mut left = self.space()?.min(STRIDE);
        let before = self.written;
        for part in parts {
            let count = part.len().min(left);
            self.memory.stretches(self.written, count, |to, offset, count| {
                // SAFETY: the stretch lies in the part of the ring that the reader has given back (`space`), which
                // nobody else touches until `written` is stored; `offset + count <= part.len()`.
                unsafe { ptr::copy_nonoverlapping(part.as_ptr().add(offset), to, count) };
            });
            self.written = self.written.wrapping_add(count as u64);
            left -= count;
        }
        if self.written == before {
            return Ok((0, false));
        }
        self.memory.counter(WRITTEN).store(self.written, Ordering::Release);
        Ok(((self.written - before) as usize, take_down(self.memory.flag(READER_SLEEPS))))
    }

    /// Sets the flag that the writer sleeps until there is room. False if there is room already.
    pub(crate) fn arm(&self) -> Result<bool, Corrupt> {
        set_up(self.memory.flag(WRITER_SLEEPS));
        Ok(self.space()? == 0)
    }

    pub(crate) fn disarm(&self) {
        self.memory.flag(WRITER_SLEEPS).store(0, Ordering::Relaxed);
    }
}

/// The reading side, which opened the writer's file.
#[derive(Debug)]
pub(crate) struct RingReader {
    memory: Memory,
    read: u64,
}

impl RingReader {
    /// Opens the ring in `file`; `None` if it does not have `nonce`, or cannot be mapped.
    pub(crate) fn open(file: &OwnedFd, nonce: &MemoryNonce) -> Option<Self> {
        if fstat(file).ok()?.st_size != LENGTH as i64 {
            return None;
        }
        let memory = Memory::map(file).ok()?;
        let mut found = [0; size_of::<MemoryNonce>()];
        // SAFETY: the writer wrote the nonce before it offered the file, and never again.
        unsafe { ptr::copy_nonoverlapping(memory.0.as_ptr(), found.as_mut_ptr(), found.len()) };
        (found == *nonce).then_some(Self { memory, read: 0 })
    }

    fn unread(&self) -> Result<usize, Corrupt> {
        let unread = self.memory.counter(WRITTEN).load(Ordering::Acquire).wrapping_sub(self.read);
        usize::try_from(unread).ok().filter(|unread| *unread <= CAPACITY).ok_or(Corrupt)
    }

    /// Reads available bytes into the parts, one after another. Returns the number of bytes, and whether the writer must be woken.
    pub(crate) fn read(&mut self, parts: &mut [IoSliceMut<'_>]) -> Result<(usize, bool), Corrupt> {
        let mut left = self.unread()?.min(STRIDE);
        let before = self.read;
        for part in parts {
            let count = part.len().min(left);
            self.memory.stretches(self.read, count, |from, offset, count| {
                // SAFETY: the stretch was written before `written` was stored, and the writer leaves it alone until
                // `read` is stored; `offset + count <= part.len()`.
                unsafe { ptr::copy_nonoverlapping(from, part.as_mut_ptr().add(offset), count) };
            });
            self.read = self.read.wrapping_add(count as u64);
            left -= count;
        }
        if self.read == before {
            return Ok((0, false));
        }
        self.memory.counter(READ).store(self.read, Ordering::Release);
        Ok(((self.read - before) as usize, take_down(self.memory.flag(WRITER_SLEEPS))))
    }

    /// Sets the flag that the reader sleeps until there are bytes. False if there are bytes already.
    pub(crate) fn arm(&self) -> Result<bool, Corrupt> {
        set_up(self.memory.flag(READER_SLEEPS));
        Ok(self.unread()? == 0)
    }

    pub(crate) fn disarm(&self) {
        self.memory.flag(READER_SLEEPS).store(0, Ordering::Relaxed);
    }
}

/// Sets a flag. The fence orders it before the caller's last check of the counters.
fn set_up(flag: &AtomicU32) {
    flag.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Clears a flag, after the caller has changed its counter. True if the other side sleeps, or is about to.
fn take_down(flag: &AtomicU32) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const NONCE: MemoryNonce = [9; 32];

    fn ring() -> (RingWriter, RingReader) {
        let (writer, file) = RingWriter::create(&NONCE).unwrap();
        assert!(RingReader::open(&file, &[8; 32]).is_none(), "another ring's nonce");
        (writer, RingReader::open(&file, &NONCE).unwrap())
    }

    #[test]
    fn the_memory_of_a_ring_is_reserved_when_it_is_made() {
        let (_writer, file) = RingWriter::create(&NONCE).unwrap();
        let found = fstat(&file).unwrap();
        assert_eq!((found.st_size, found.st_blocks * 512), (LENGTH as i64, LENGTH as i64));
    }

    #[test]
    fn every_byte_arrives_in_order_over_many_turns_of_the_ring() {
        let (mut writer, mut reader) = ring();
        let total = 5 * CAPACITY + 12_345;
        let sending = thread::spawn(move || {
            let bytes: Vec<u8> = (0..total).map(|index| (index % 251) as u8).collect();
            let mut sent = 0;
            while sent < total {
                // Lengths that wrap at every possible place, in two parts.
                let end = total.min(sent + 1 + sent % 99_991);
                let middle = sent + (end - sent) / 3;
                sent +=
                    writer.write(&[IoSlice::new(&bytes[sent..middle]), IoSlice::new(&bytes[middle..end])]).unwrap().0;
            }
        });
        let mut received = vec![0; total];
        let mut count = 0;
        while count < total {
            let end = total.min(count + 1 + count % 77_773);
            count += reader.read(&mut [IoSliceMut::new(&mut received[count..end])]).unwrap().0;
        }
        sending.join().unwrap();
        assert!(received.iter().enumerate().all(|(index, byte)| *byte == (index % 251) as u8));
        assert_eq!(reader.read(&mut [IoSliceMut::new(&mut [0; 1])]), Ok((0, false)));
    }

    #[test]
    fn whoever_sleeps_is_woken_once_by_what_it_waits_for() {
        let (mut writer, mut reader) = ring();
        assert_eq!(reader.arm(), Ok(true), "nothing there: may sleep");
        assert_eq!(writer.write(&[IoSlice::new(b"ab")]), Ok((2, true)));
        assert_eq!(writer.write(&[IoSlice::new(b"c")]), Ok((1, false)), "already woken");
        assert_eq!(reader.arm(), Ok(false), "something there: must not sleep");
        reader.disarm();

        let full = vec![0; CAPACITY];
        while writer.write(&[IoSlice::new(&full)]).unwrap().0 > 0 {}
        assert_eq!(writer.arm(), Ok(true), "no room: may sleep");
        assert_eq!(reader.read(&mut [IoSliceMut::new(&mut [0; 3])]), Ok((3, true)));
        assert_eq!(writer.arm(), Ok(false));
        writer.disarm();
        assert_eq!(reader.read(&mut [IoSliceMut::new(&mut [0; 3])]), Ok((3, false)));
    }

    #[test]
    fn counters_that_cannot_be_are_an_error_not_wrong_bytes() {
        let (mut writer, mut reader) = ring();
        writer.memory.counter(WRITTEN).store(CAPACITY as u64 + 1, Ordering::Release);
        assert_eq!(reader.read(&mut [IoSliceMut::new(&mut [0; 3])]), Err(Corrupt));
        reader.memory.counter(READ).store(1, Ordering::Release);
        assert_eq!(writer.write(&[IoSlice::new(b"a")]), Err(Corrupt));
    }
}
