//! The default generators of libtorch, one per device: their raw states and seeds.
//!
//! Whatever draws in a model (dropout, `randn`, initialisation) draws from these. A state is an opaque run of bytes,
//! always equally long for one kind of device and build; it contains the seed and the position in its stream.

use std::ffi::c_char;

use tch::{Device, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, device_index, device_name};
use crate::memory::bytes_of;

/// The state of `device`'s generator.
///
/// # Errors
/// `NoSuchDevice` for a device that is neither CPU nor CUDA; `Torch` for a CUDA device that is not there.
pub fn get_state(device: Device) -> Result<Vec<u8>, Error> {
    bytes_of(&state_tensor(device)?)
}

/// Puts `device`'s generator into a state that [`get_state`] gave.
///
/// # Errors
/// `StateLength` if it is no state of this kind of generator; `Torch` if libtorch refuses its content.
pub fn set_state(device: Device, state: &[u8]) -> Result<(), Error> {
    let expected = state_tensor(device)?.numel();
    if state.len() != expected {
        return Err(Error::StateLength { device: device_name(device), expected, found: state.len() });
    }
    let index = device_index(device, "generator")?;
    // SAFETY: the shim reads `state.len()` bytes and keeps no reference to them.
    ffi::check(unsafe { lte_generator_set(index, state.as_ptr(), state.len()) })
}

/// Seeds `device`'s generator and starts its stream anew.
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
    // SAFETY: `state` is a place for one address; it is set if the call succeeds.
    ffi::check(unsafe { lte_generator_get(index, &raw mut state) })?;
    // SAFETY: the call succeeded, so it made this tensor for us.
    Ok(unsafe { ffi::adopt(state) })
}

unsafe extern "C" {
    fn lte_generator_get(device: i32, out: *mut *mut CTensor) -> *mut c_char;
    fn lte_generator_set(device: i32, bytes: *const u8, length: usize) -> *mut c_char;
    fn lte_generator_seed(device: i32, seed: u64) -> *mut c_char;
}
