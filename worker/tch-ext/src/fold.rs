//! Gradients as one flat tensor, each operation in a single call into libtorch. Hot.

use std::ffi::c_char;

use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// The gradients of `loss` by `params`, one after another in the 1-D tensor `flat`, which they fill exactly.
///
/// Nothing is accumulated: `.grad` is neither read nor written, and the graph is freed. Hooks of the parameters run.
/// A parameter that `loss` does not depend on gets zeros in `flat` and a 0 in `used`, where the others get a 1.
///
/// # Errors
/// `Count`; `Torch`, also for whatever the backward pass throws; `flat` is unchanged then.
pub fn grads_into(loss: &Tensor, params: &[Tensor], flat: &Tensor, used: &mut [u8]) -> Result<(), Error> {
    if used.len() != params.len() {
        return Err(Error::Count { what: "used parameters", expected: params.len(), found: used.len() });
    }
    // SAFETY: both lists have as many entries as is said and live during the call, as do the tensors.
    ffi::check(unsafe {
        lte_grads_into(ffi::raw(loss), ffi::raw_list(params), params.len(), ffi::raw(flat), used.as_mut_ptr())
    })
}

/// The L2 norm of the flat tensor, summed in 64 bits as by [`layer_norms`], beside it: a device is not waited for. One `Double`
/// without dimensions.
///
/// # Errors
/// `Torch`.
pub fn norm(flat: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: the tensor lives during the call.
    ffi::made(|out| unsafe { lte_norm(ffi::raw(flat), out) })
}

/// The L2 norms of the parts `flat[offsets[i]..offsets[i + 1]]`; one fewer than there are offsets.
///
/// Summed in 64 bits. For 32-bit floats on the CPU the order of the sum is fixed, whatever the number of threads and
/// the kind of machine: element `i` of a part goes to partial sum `i % 16`, and those are added from the first on.
///
/// # Errors
/// `Offsets` if they do not ascend or reach beyond `flat`.
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
