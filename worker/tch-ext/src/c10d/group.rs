//! Process groups: collectives with deadlines, and a cut that ends all waiting operations.
//!
//! One thread uses a group; another one may hold its [`AbortHandle`]. Operations are matched by their order, so every member must call the
//! same operations in the same order. Gloo itself reports a dead process only to its direct neighbours. Here a member cuts its own
//! connections after a failure, so that all members notice it within a few milliseconds.

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

/// The transport of a group's tensors.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    device: Device,
    connect: Connect,
}

/// The entry point by which a back end creates a group. Arguments: store, rank, size, device (index of a CUDA device, -1 for the CPU),
/// timeout in milliseconds, and the addresses for the group and for the kind of a failure.
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

    /// Another back end, for tensors on `device`.
    ///
    /// # Safety
    /// On success `connect` must return null, and store a new `lockstep::Group` in `out`. On failure it must return a text of
    /// `owned_text`, and store the kind of the failure in `failure`. It must not throw, and must not keep any of its arguments.
    pub unsafe fn of(device: Device, connect: Connect) -> Self {
        Self { device, connect }
    }

    /// The device of its tensors.
    pub fn device(&self) -> Device {
        self.device
    }
}

/// One member's end of a group.
#[derive(Debug)]
pub struct ProcessGroup {
    inner: Arc<Inner>,
    rank: usize,
    size: usize,
    /// Not `Sync`: operations are matched by their order, so only one thread at a time may call them.
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

// SAFETY: the C++ object may be used by any thread. Only its cut is called by several threads at once, and an atomic flag and Gloo's
// own locks guard it.
unsafe impl Send for Inner {}
// SAFETY: as above; `ProcessGroup`, which calls the other functions, is not `Sync`.
unsafe impl Sync for Inner {}

impl ProcessGroup {
    /// Joins a group of `size` members as member `rank`; returns when all members are connected.
    ///
    /// All members must use the same store, which no group has used before.
    ///
    /// # Errors
    /// `Timeout` if a member did not join within `deadline`; `Argument` if `rank` is not below `size`; `Backend` for example for NCCL
    /// without its device.
    pub fn new(backend: &Backend, store: &Store, rank: usize, size: usize, deadline: Duration) -> Result<Self, Error> {
        let (Ok(c_rank), Ok(c_size)) = (i32::try_from(rank), i32::try_from(size)) else {
            return Err(Error::Argument(format!("a group of {size} members is too large")));
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
        // SAFETY: the store lives during the call; the last two arguments are addresses to write to.
        let answer =
            unsafe { (backend.connect)(store.raw(), c_rank, c_size, device, timeout, &raw mut raw, &raw mut failure) };
        check(answer, failure, deadline)?;
        Ok(Self { inner: Arc::new(Inner { raw }), rank, size, one_thread: PhantomData })
    }

    /// Number of this member, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of members.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A handle with which another thread can cut this group.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { inner: Arc::downgrade(&self.inner) }
    }

    /// Replaces `tensor` in every member by the sum over all members. The back end chooses the order of additions.
    ///
    /// Tensors must be contiguous, as in every operation.
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

    /// Sends part `i` of `input` to member `i`, and receives part `i` of `output` from it. Parts are ranges of the first dimension, with
    /// the given lengths. The part that `i` sends to `j` must have the length that `j` expects from `i`.
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
                return Err(Error::Argument(format!(
                    "the lengths {lengths:?} of the {name} do not add up to its {rows} rows"
                )));
            }
        }
        // SAFETY: as above; both lists have an entry for each member.
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
        Err(Error::Argument(format!("{found} {what} were given, but the group has {} members", self.size)))
    }
}

/// Rejects tensors that are not contiguous. Gloo reads a tensor from its address and number of elements alone, so with other strides it
/// would access foreign memory.
fn dense(name: &str, tensor: &Tensor) -> Result<(), Error> {
    if tensor.defined() && !tensor.is_sparse() && tensor.is_contiguous() {
        return Ok(());
    }
    Err(Error::Argument(format!("the {name} is not contiguous")))
}

impl AbortHandle {
    /// Cuts the group: all waiting and later operations fail at once, here with `Aborted`, in the peers with `PeerGone`. Has no effect if
    /// the group was cut before or no longer exists.
    pub fn abort(&self) {
        if let Some(inner) = self.inner.upgrade() {
            // SAFETY: the group lives as long as `inner`, and any thread may cut it.
            let answer = unsafe { lte_group_cut(inner.raw) };
            // An error is ignored: the flag is set in any case, and a connection that cannot be closed is closed already.
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

/// A `lockstep::Group` of the shim, of which Rust only has the address.
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
