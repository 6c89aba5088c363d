//! The default generators of libtorch, one for each device: raw states and seeds.
//!
//! All random numbers of a model (dropout, `randn`, initialisation) come from them. A state is a sequence of bytes with the seed and the
//! position in the stream; its length is fixed for a kind of device and a build.

use std::ffi::c_char;

use tch::{Device, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, device_index, device_name};
use crate::memory::bytes_of;

/// The state of the generator of `device`.
///
/// # Errors
/// `NoSuchDevice` for a device that is neither CPU nor CUDA; `Torch` for a CUDA device that does not exist.
pub fn get_state(device: Device) -> Result<Vec<u8>, Error> {
    bytes_of(&state_tensor(device)?)
}

/// Sets the generator of `device` to a state that [`get_state`] returned.
///
/// # Errors
/// `StateLength` if the length is not that of a state of this generator; `Torch` if libtorch rejects the contents.
pub fn set_state(device: Device, state: &[u8]) -> Result<(), Error> {
    let expected = state_tensor(device)?.numel();
    if state.len() != expected {
        return Err(Error::StateLength { device: device_name(device), expected, found: state.len() });
    }
    let index = device_index(device, "generator")?;
    // SAFETY: the shim reads `state.len()` bytes and keeps no reference to them.
    ffi::check(unsafe { lte_generator_set(index, state.as_ptr(), state.len()) })
}

/// Seeds the generator of `device`, and begins a new stream.
///
/// # Errors
/// As for [`get_state`].
pub fn seed(device: Device, seed: u64) -> Result<(), Error> {
    let index = device_index(device, "generator")?;
    // SAFETY: takes plain numbers.
    ffi::check(unsafe { lte_generator_seed(index, seed) })
}

fn state_tensor(device: Device) -> Result<Tensor, Error> {
    let index = device_index(device, "generator")?;
    let mut state = std::ptr::null_mut();
    // SAFETY: `state` has room for one address, which is set if the call succeeds.
    ffi::check(unsafe { lte_generator_get(index, &raw mut state) })?;
    // SAFETY: the call succeeded, so it created this tensor and passed on its ownership.
    Ok(unsafe { ffi::adopt(state) })
}

unsafe extern "C" {
    fn lte_generator_get(device: i32, out: *mut *mut CTensor) -> *mut c_char;
    fn lte_generator_set(device: i32, bytes: *const u8, length: usize) -> *mut c_char;
    fn lte_generator_seed(device: i32, seed: u64) -> *mut c_char;
}
