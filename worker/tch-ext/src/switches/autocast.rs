//! Autocast to bfloat16 on CPU and CUDA: libtorch computes matrix products and convolutions in bfloat16, and operators that need range or
//! precision (normalisation, softmax, losses) in full precision. `tch` supports only CUDA with half precision.

use std::ffi::c_char;

use tch::Device;

use crate::Error;
use crate::ffi;

/// Runs `body` with autocast to bfloat16 for `device`, on this thread.
///
/// # Errors
/// `NoSuchDevice`, before `body` ran; `Torch`.
pub fn bf16<T>(device: Device, body: impl FnOnce() -> T) -> Result<T, Error> {
    let device = ffi::device_index(device, "autocast")?;
    let mut before = CAutocast::default();
    // SAFETY: `before` is an address for the call to write to.
    ffi::check(unsafe { lte_autocast_enter(device, &raw mut before) })?;
    let region = Region { device, before };
    let answer = body();
    drop(region);
    Ok(answer)
}

/// Ends autocast when it is dropped, also if `body` panics.
struct Region {
    device: i32,
    before: CAutocast,
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `before` is what `enter` wrote, and the call only reads it.
        let left = ffi::check(unsafe { lte_autocast_leave(self.device, &raw const self.before) });
        left.expect("what was switched on for this device can be switched off");
    }
}

/// `lte_autocast`.
#[repr(C)]
#[derive(Default)]
struct CAutocast {
    enabled: u8,
    dtype: i8,
}

unsafe extern "C" {
    fn lte_autocast_enter(device: i32, before: *mut CAutocast) -> *mut c_char;
    fn lte_autocast_leave(device: i32, before: *const CAutocast) -> *mut c_char;
}
