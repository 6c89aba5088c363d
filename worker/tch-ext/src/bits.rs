//! Fingerprints of tensors: sums over their bits, which show whether and where two states differ. Hot.

use std::ffi::c_char;

use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// A fingerprint of each tensor: the sum over the bits of all elements, each mixed with its position in row-major order.
///
/// The arithmetic is modulo 2^64, so the sum does not depend on order, device or number of threads. A change of one element always
/// changes it. The shape is not part of it. On the CPU it takes one read of the memory, elsewhere tensor operations.
///
/// # Errors
/// `Torch`, for example for a sparse or undefined tensor.
pub fn bit_sums(tensors: &[Tensor]) -> Result<Vec<u64>, Error> {
    let mut sums = vec![0; tensors.len()];
    // SAFETY: both lists have the given number of entries, and live during the call.
    ffi::check(unsafe { lte_bit_sums(ffi::raw_list(tensors), tensors.len(), sums.as_mut_ptr()) })?;
    Ok(sums)
}

unsafe extern "C" {
    fn lte_bit_sums(tensors: *const *const CTensor, count: usize, out: *mut u64) -> *mut c_char;
}
