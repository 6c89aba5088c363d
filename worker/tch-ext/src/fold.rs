//! Gradients as one flat tensor. Each operation is a single call into the shim. Hot.

use std::ffi::c_char;

use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// Computes the gradients of `loss` by `params`, and writes them one after another to the 1-D tensor `flat`, whose length must be the sum
/// of their lengths.
///
/// Nothing is accumulated: `.grad` is neither read nor written, and the graph is freed. Hooks of the parameters run. A parameter that
/// `loss` does not depend on gets zeros in `flat` and 0 in `used`; the others get 1 in `used`.
///
/// # Errors
/// `Count` for a wrong length of `used`; `Torch`, also for exceptions of the backward pass. After an error `flat` is unchanged.
pub fn grads_into(loss: &Tensor, params: &[Tensor], flat: &Tensor, used: &mut [u8]) -> Result<(), Error> {
    if used.len() != params.len() {
        return Err(Error::Count { what: "used parameters", expected: params.len(), found: used.len() });
    }
    // SAFETY: both lists have the given number of entries, and live during the call, as do the tensors.
    ffi::check(unsafe {
        lte_grads_into(ffi::raw(loss), ffi::raw_list(params), params.len(), ffi::raw(flat), used.as_mut_ptr())
    })
}

/// The L2 norm of the flat tensor, summed in 64 bits as in [`layer_norms`]: a scalar of type `Double` on the same device. Does not wait for
/// the device.
///
/// # Errors
/// `Torch`.
pub fn norm(flat: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: the tensor lives during the call.
    ffi::made(|out| unsafe { lte_norm(ffi::raw(flat), out) })
}

/// The L2 norms of the parts `flat[offsets[i]..offsets[i + 1]]`: one norm fewer than offsets.
///
/// The sums have 64 bits. For 32-bit floats on the CPU the order of additions is the same with any number of threads and on any machine:
/// element `i` of a part goes to partial sum `i % 16`, and the partial sums are added in order.
///
/// # Errors
/// `Offsets` if the offsets do not ascend, or exceed `flat`.
pub fn layer_norms(flat: &Tensor, offsets: &[i64]) -> Result<Vec<f64>, Error> {
    let length = flat.numel() as i64;
    let ascending = offsets.is_sorted();
    let within = offsets.first().is_none_or(|first| *first >= 0) && offsets.last().is_none_or(|last| *last <= length);
    if !ascending || !within || flat.dim() != 1 {
        return Err(Error::Offsets { length });
    }
    let mut norms = vec![0.0; offsets.len().saturating_sub(1)];
    // SAFETY: `offsets` has one more entry than `norms` (or both are empty), and all lie within `flat`.
    ffi::check(unsafe { lte_layer_norms(ffi::raw(flat), offsets.as_ptr(), norms.len(), norms.as_mut_ptr()) })?;
    Ok(norms)
}

unsafe extern "C" {
    fn lte_grads_into(
        loss: *const CTensor,
        params: *const *const CTensor,
        count: usize,
        flat: *const CTensor,
        used: *mut u8,
    ) -> *mut c_char;
    fn lte_norm(flat: *const CTensor, out: *mut *mut CTensor) -> *mut c_char;
    fn lte_layer_norms(flat: *const CTensor, offsets: *const i64, parts: usize, out: *mut f64) -> *mut c_char;
}
