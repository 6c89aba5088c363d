//! Process groups: collectives with deadlines, and a cut that releases everybody.
//!
//! A group is used by one thread; another may hold its [`AbortHandle`]. Operations are matched by order, so every
//! member calls the same ones in the same order. Gloo alone tells only the direct neighbours of a dead process; here a
//! member that meets a failure cuts its own connections, so the news is everywhere in a few milliseconds.

use std::cell::Cell;
use std::ffi::c_char;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tch::{Device, Tensor};

use super::Store;
use super::error::{Error, check, milliseconds};
use super::store::CStore;
use crate::ffi::{self, CTensor};

/// What carries the tensors of a group.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    device: Device,
    connect: Connect,
}

/// The entry point by which a back end makes a group: it is given the store, rank, size, device (the index of a CUDA device; -1 for the
/// CPU) and milliseconds until it gives up, and places for the group and for the kind of a failure.
pub type Connect = unsafe extern "C" fn(
    store: *const CStore,
    rank: i32,
    size: i32,
    device: i32,
    timeout_ms: i64,
    out: *mut *mut CGroup,
    failure: *mut i32,
) -> *mut c_char;

impl Backend {
    /// NCCL, for the tensors of CUDA device `device_index`.
    pub fn nccl(device_index: usize) -> Self {
        Self { device: Device::Cuda(device_index), connect: lte_group_nccl }
    }

    /// Another back end, for tensors of `device`.
    ///
    /// # Safety
    /// `connect` answers null, with a `lockstep::Group` of its own making in `out`, or else a text of `owned_text`, with the kind of
    /// failure in `failure`. It never throws, and keeps none of the addresses that it was given.
    pub unsafe fn of(device: Device, connect: Connect) -> Self {
        Self { device, connect }
    }

    /// Where its tensors lie.
    pub fn device(&self) -> Device {
        self.device
    }
}

/// A member's end of a group.
#[derive(Debug)]
pub struct ProcessGroup {
    inner: Arc<Inner>,
    rank: usize,
    size: usize,
    /// Operations are matched by order, so one thread at a time: not `Sync`.
    one_thread: PhantomData<Cell<()>>,
}

/// Cuts a group from another thread.
#[derive(Debug, Clone)]
pub struct AbortHandle {
    inner: Weak<Inner>,
}

#[derive(Debug)]
struct Inner {
    raw: *mut CGroup,
}

// SAFETY: the C++ object may be used by any thread; of its functions only the cut is called by several at once, and
// that one is guarded by an atomic flag and by Gloo's own locks.
unsafe impl Send for Inner {}
// SAFETY: as above; `ProcessGroup`, which calls the others, is not `Sync`.
unsafe impl Sync for Inner {}

impl ProcessGroup {
    /// Joins a group of `size` members as number `rank`; returns when all are connected.
    ///
    /// All members name the same store, and one that no group has used.
    ///
    /// # Errors
    /// `Timeout` if not all members came within `deadline`; `Argument` for a rank beyond the size; `Backend` for
    /// NCCL without its device.
    pub fn new(backend: &Backend, store: &Store, rank: usize, size: usize, deadline: Duration) -> Result<Self, Error> {
        let (Ok(c_rank), Ok(c_size)) = (i32::try_from(rank), i32::try_from(size)) else {
            return Err(Error::Argument(format!("a group of {size} is too large")));
        };
        if rank >= size {
            return Err(Error::Argument(format!("rank {rank} is not below the group's size {size}")));
        }
        let timeout = milliseconds(deadline);
        let (mut raw, mut failure) = (std::ptr::null_mut(), 0);
        let device = match backend.device {
            Device::Cuda(index) => i32::try_from(index).unwrap_or(i32::MAX),
            _ => -1,
        };
        // SAFETY: the store lives during the call; the last two are places to write to.
        let answer =
            unsafe { (backend.connect)(store.raw(), c_rank, c_size, device, timeout, &raw mut raw, &raw mut failure) };
        check(answer, failure, deadline)?;
        Ok(Self { inner: Arc::new(Inner { raw }), rank, size, one_thread: PhantomData })
    }

    /// This member's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A handle by which another thread cuts this group.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { inner: Arc::downgrade(&self.inner) }
    }

    /// Replaces `tensor` at every member by the sum of all, in an order that the backend chooses.
    ///
    /// Tensors are contiguous, here and in every operation.
    ///
    /// # Errors
    /// `Timeout`, `PeerGone`, `Aborted`, `Argument`, `Backend`.
    pub fn all_reduce(&self, tensor: &Tensor, deadline: Duration) -> Result<(), Error> {
        dense("tensor", tensor)?;
        // SAFETY: group and tensor live during the call, here and in every operation below.
        self.run(deadline, |group, timeout, failure| unsafe {
            lte_group_all_reduce(group, ffi::raw(tensor), timeout, failure)
        })
    }

    /// Sends the `i`-th part of `input` to member `i`, and receives the `i`-th part of `output` from it. Parts are runs
    /// along the first dimension, of the lengths given; what `i` sends to `j` must be as long as `j` expects from `i`.
    ///
    /// # Errors
    /// As for [`all_reduce`](Self::all_reduce).
    pub fn all_to_all(
        &self,
        output: &Tensor,
        output_lengths: &[i64],
        input: &Tensor,
        input_lengths: &[i64],
        deadline: Duration,
    ) -> Result<(), Error> {
        self.count("output parts", output_lengths.len())?;
        self.count("input parts", input_lengths.len())?;
        for (tensor, lengths, name) in [(output, output_lengths, "output"), (input, input_lengths, "input")] {
            dense(name, tensor)?;
            let rows = tensor.size().first().copied().unwrap_or(0);
            if lengths.iter().any(|length| *length < 0) || lengths.iter().sum::<i64>() != rows {
                return Err(Error::Argument(format!("the {name}'s parts {lengths:?} do not make its {rows} rows")));
            }
        }
        // SAFETY: as above; both lists have one entry per member.
        self.run(deadline, |group, timeout, failure| unsafe {
            lte_group_all_to_all(
                group,
                ffi::raw(output),
                ffi::raw(input),
                output_lengths.as_ptr(),
                input_lengths.as_ptr(),
                self.size,
                timeout,
                failure,
            )
        })
    }

    fn run(
        &self,
        deadline: Duration,
        call: impl FnOnce(*mut CGroup, i64, *mut i32) -> *mut c_char,
    ) -> Result<(), Error> {
        let mut failure = 0;
        let answer = call(self.inner.raw, milliseconds(deadline), &raw mut failure);
        check(answer, failure, deadline)
    }

    fn count(&self, what: &str, found: usize) -> Result<(), Error> {
        if found == self.size {
            return Ok(());
        }
        Err(Error::Argument(format!("{found} {what} were given in a group of {}", self.size)))
    }
}

/// Gloo takes a tensor's address and its number of elements and asks no further: with other strides it would reach
/// into memory that is not the tensor's.
fn dense(name: &str, tensor: &Tensor) -> Result<(), Error> {
    if tensor.defined() && !tensor.is_sparse() && tensor.is_contiguous() {
        return Ok(());
    }
    Err(Error::Argument(format!("the {name} is not contiguous")))
}

impl AbortHandle {
    /// Cuts the group: whatever waits in it fails at once, here with `Aborted` and at the peers with `PeerGone`, and so
    /// does all that comes later. Nothing happens if it was cut before or is gone.
    pub fn abort(&self) {
        if let Some(inner) = self.inner.upgrade() {
            // SAFETY: the group lives while `inner` does, and the cut may come from any thread.
            let answer = unsafe { lte_group_cut(inner.raw) };
            // The flag is set in any case, and what could not be closed was closed before.
            drop(ffi::take_text(answer));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: `raw` came from a constructor and is freed once, here.
        unsafe { lte_group_free(self.raw) };
    }
}

/// A `lockstep::Group` of the shim: an address only.
#[derive(Debug)]
pub enum CGroup {}

unsafe extern "C" {
    fn lte_group_nccl(
        store: *const CStore,
        rank: i32,
        size: i32,
        device: i32,
        timeout_ms: i64,
        out: *mut *mut CGroup,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_group_free(group: *mut CGroup);
    fn lte_group_cut(group: *mut CGroup) -> *mut c_char;
    fn lte_group_all_reduce(
        group: *mut CGroup,
        tensor: *const CTensor,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_group_all_to_all(
        group: *mut CGroup,
        output: *const CTensor,
        input: *const CTensor,
        output_lengths: *const i64,
        input_lengths: *const i64,
        count: usize,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
}
