//! Process groups: collectives with deadlines, and a cut that releases everybody.
//!
//! A group is used by one thread; another may hold its [`AbortHandle`]. Operations are matched by order, so every
//! member calls the same ones in the same order. Gloo alone tells only the direct neighbours of a dead process; here a
//! member that meets a failure cuts its own connections, so the news is everywhere in a few milliseconds.

use std::cell::Cell;
use std::ffi::c_char;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tch::Tensor;

use super::Store;
use super::error::{Error, c_string, check, milliseconds};
use super::store::CStore;
use crate::ffi::{self, CTensor};

/// What carries the tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// CPU tensors, over TCP; neither authenticated nor encrypted.
    Gloo {
        /// Where it listens.
        bind: Bind,
    },
    /// CUDA tensors of one device.
    Nccl {
        /// The index of this member's device.
        device: usize,
    },
}

/// Where Gloo listens and connects from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// A network interface by name, such as `eth0`.
    Interface(String),
    /// An address of this machine.
    Address(IpAddr),
}

impl Default for Bind {
    /// Loopback.
    fn default() -> Self {
        Self::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))
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
    /// `Timeout` if not all members came within `deadline`; `Argument` for a rank beyond the size; `Backend` for an
    /// interface or address that this machine lacks, and for NCCL without its device.
    pub fn new(backend: &Backend, store: &Store, rank: usize, size: usize, deadline: Duration) -> Result<Self, Error> {
        let (Ok(c_rank), Ok(c_size)) = (i32::try_from(rank), i32::try_from(size)) else {
            return Err(Error::Argument(format!("a group of {size} is too large")));
        };
        if rank >= size {
            return Err(Error::Argument(format!("rank {rank} is not below the group's size {size}")));
        }
        let timeout = milliseconds(deadline);
        let (mut raw, mut failure) = (std::ptr::null_mut(), 0);
        let answer = match backend {
            Backend::Gloo { bind } => {
                let (interface, address) = match bind {
                    Bind::Interface(name) => (name.as_str(), String::new()),
                    Bind::Address(address) => ("", address.to_string()),
                };
                let (interface, address) = (c_string("interface", interface)?, c_string("address", &address)?);
                // SAFETY: store and texts live during the call; the rest are places to write to.
                unsafe {
                    lte_group_gloo(
                        store.raw(),
                        c_rank,
                        c_size,
                        interface.as_ptr(),
                        address.as_ptr(),
                        timeout,
                        &raw mut raw,
                        &raw mut failure,
                    )
                }
            }
            Backend::Nccl { device } => {
                let device = i32::try_from(*device).unwrap_or(i32::MAX);
                // SAFETY: as above.
                unsafe { lte_group_nccl(store.raw(), c_rank, c_size, device, timeout, &raw mut raw, &raw mut failure) }
            }
        };
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

/// A `lockstep::Group`.
enum CGroup {}

unsafe extern "C" {
    fn lte_group_gloo(
        store: *const CStore,
        rank: i32,
        size: i32,
        interface: *const c_char,
        address: *const c_char,
        timeout_ms: i64,
        out: *mut *mut CGroup,
        failure: *mut i32,
    ) -> *mut c_char;
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
