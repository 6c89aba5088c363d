//! Streams of a GPU: with them two threads can use one GPU at the same time, and make the GPU wait for each other's results.
//!
//! On the CPU results are complete when a call returns, so all functions here do nothing.

use std::ffi::c_char;

use tch::Device;

use crate::Error;
use crate::ffi::{self, device_index};

/// Gives this thread its own stream on `device`. Its later work runs beside the work of other threads.
///
/// # Errors
/// `NoSuchDevice` for a device that is neither CPU nor CUDA; `Torch`.
pub fn leave_default(device: Device) -> Result<(), Error> {
    let index = device_index(device, "stream")?;
    if device == Device::Cpu {
        return Ok(());
    }
    // SAFETY: takes a plain number.
    ffi::check(unsafe { lte_stream_leave_default(index) })
}

/// A point in the stream of a thread, for which other threads can wait.
#[derive(Debug)]
pub struct Mark {
    device: i32,
    /// `None` on the CPU.
    mark: Option<Owned>,
}

#[derive(Debug)]
struct Owned(*mut CMark);

// SAFETY: a CUDA event belongs to no thread. A mark is recorded once, before another thread can have it; afterwards threads only wait for
// it, which libtorch allows from any thread.
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: created by `lte_mark_new`, and freed once.
        unsafe { lte_mark_free(self.0) };
    }
}

impl Mark {
    /// A mark after all work that this thread has given to `device` so far.
    ///
    /// # Errors
    /// As for [`leave_default`].
    pub fn new(device: Device) -> Result<Self, Error> {
        let index = device_index(device, "stream")?;
        if device == Device::Cpu {
            return Ok(Self { device: index, mark: None });
        }
        let mut mark = std::ptr::null_mut();
        // SAFETY: `mark` has room for one address, which is set if the call succeeds.
        ffi::check(unsafe { lte_mark_new(index, &raw mut mark) })?;
        Ok(Self { device: index, mark: Some(Owned(mark)) })
    }

    /// Makes the device begin this thread's later work after it has reached the mark. The call itself does not wait.
    ///
    /// # Errors
    /// `Torch`.
    pub fn wait(&self) -> Result<(), Error> {
        match &self.mark {
            // SAFETY: the mark lives as long as `self`.
            Some(mark) => ffi::check(unsafe { lte_mark_wait(mark.0, self.device) }),
            None => Ok(()),
        }
    }

    /// Whether the device has reached the mark.
    ///
    /// # Errors
    /// `Torch`, also for earlier failures of the device.
    pub fn is_reached(&self) -> Result<bool, Error> {
        let Some(mark) = &self.mark else { return Ok(true) };
        let mut reached = 0;
        // SAFETY: the mark lives as long as `self`, and `reached` has room for one byte.
        ffi::check(unsafe { lte_mark_is_reached(mark.0, &raw mut reached) })?;
        Ok(reached != 0)
    }

    /// Waits until the device has reached the mark.
    ///
    /// # Errors
    /// `Torch`, also for earlier failures of the device.
    pub fn synchronize(&self) -> Result<(), Error> {
        match &self.mark {
            // SAFETY: the mark lives as long as `self`.
            Some(mark) => ffi::check(unsafe { lte_mark_synchronize(mark.0) }),
            None => Ok(()),
        }
    }
}

/// An `lte_mark`.
enum CMark {}

unsafe extern "C" {
    fn lte_stream_leave_default(device: i32) -> *mut c_char;
    fn lte_mark_new(device: i32, out: *mut *mut CMark) -> *mut c_char;
    fn lte_mark_wait(mark: *const CMark, device: i32) -> *mut c_char;
    fn lte_mark_is_reached(mark: *const CMark, reached: *mut u8) -> *mut c_char;
    fn lte_mark_synchronize(mark: *const CMark) -> *mut c_char;
    fn lte_mark_free(mark: *mut CMark);
}
