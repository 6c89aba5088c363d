//! Streams of a device: two threads that compute on one GPU at the same time, and wait for each other's results there.
//!
//! On the CPU there are none: what a thread has computed is there, and all of this does nothing.

use std::ffi::c_char;

use tch::Device;

use crate::Error;
use crate::ffi::{self, device_index};

/// What this thread computes on `device` goes to a stream of its own from now on, beside those of other threads.
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

/// A point in what one thread gives its device to do, that others can wait for.
#[derive(Debug)]
pub struct Mark {
    device: i32,
    /// None on the CPU.
    mark: Option<Owned>,
}

#[derive(Debug)]
struct Owned(*mut CMark);

// SAFETY: a CUDA event belongs to no thread; a mark is recorded once, before anybody else has it, and only waited for
// afterwards, which libtorch allows from any thread.
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by `lte_mark_new`, freed once.
        unsafe { lte_mark_free(self.0) };
    }
}

impl Mark {
    /// Behind all that this thread has given `device` to do until now.
    ///
    /// # Errors
    /// As for [`leave_default`].
    pub fn new(device: Device) -> Result<Self, Error> {
        let index = device_index(device, "stream")?;
        if device == Device::Cpu {
            return Ok(Self { device: index, mark: None });
        }
        let mut mark = std::ptr::null_mut();
        // SAFETY: `mark` is a place for one address; it is set if the call succeeds.
        ffi::check(unsafe { lte_mark_new(index, &raw mut mark) })?;
        Ok(Self { device: index, mark: Some(Owned(mark)) })
    }

    /// Whatever this thread gives the device from now on begins when all before the mark is done. Does not wait itself.
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

    /// Whether the device has done all before the mark.
    ///
    /// # Errors
    /// `Torch`, also for what the device failed at until then.
    pub fn is_reached(&self) -> Result<bool, Error> {
        let Some(mark) = &self.mark else { return Ok(true) };
        let mut reached = 0;
        // SAFETY: the mark lives as long as `self`, and `reached` is a place for one byte.
        ffi::check(unsafe { lte_mark_is_reached(mark.0, &raw mut reached) })?;
        Ok(reached != 0)
    }

    /// Returns when the device has done all before the mark.
    ///
    /// # Errors
    /// `Torch`, also for what the device failed at until then.
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
