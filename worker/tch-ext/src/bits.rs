//! Fingerprints of tensors: sums over their bits, for telling whether and where two states differ. Hot.

use std::ffi::c_char;

use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// A fingerprint of each tensor: a sum over its elements' bits, each mixed with its place in row-major order.
///
/// Integer arithmetic modulo 2^64, so neither order nor device nor number of threads matters; a change of one element
/// always changes it. The shape is not part of it. One read of memory on the CPU, tensor operations elsewhere.
///
/// # Errors
/// `Torch`, for a sparse or undefined tensor among others.
pub fn bit_sums(tensors: &[Tensor]) -> Result<Vec<u64>, Error> {
    let mut sums = vec![0; tensors.len()];
    // SAFETY: both lists have as many entries as is said and live during the call.
    ffi::check(unsafe { lte_bit_sums(ffi::raw_list(tensors), tensors.len(), sums.as_mut_ptr()) })?;
    Ok(sums)
}

unsafe extern "C" {
    fn lte_bit_sums(tensors: *const *const CTensor, count: usize, out: *mut u64) -> *mut c_char;
}
