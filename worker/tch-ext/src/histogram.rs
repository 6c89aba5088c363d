//! How the elements of tensors are distributed: of any tensor, and of what a model's layers give while it runs forward.

use std::ffi::{c_char, c_void};

use lockstep_common::series::Histogram;
use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CHistogram};

/// The distribution of the elements of `tensor`, as floats of 32 bits; step and time are 0. One read of memory on the CPU,
/// tensor operations elsewhere.
///
/// # Errors
/// `Torch`, for an undefined tensor among others.
pub fn histogram_of(tensor: &Tensor) -> Result<Histogram, Error> {
    let mut raw = Box::new(CHistogram::EMPTY);
    // SAFETY: the tensor lives during the call, which writes to `raw` only.
    ffi::check(unsafe { ffi::lte_histogram_of(ffi::raw(tensor), &raw mut *raw) })?;
    Ok(convert(&raw))
}

/// Runs `forward` and counts what each layer gives in it: the name of the operator (`relu`, `linear`, ..) and the
/// distribution, in the order of the forward pass. A layer inside of another one is not counted. Of a tensor with more than
/// `most` elements evenly spaced ones are counted, at most so many.
///
/// It looks at operators as libtorch's dispatcher meets them on this thread, so it sees models of every kind; no bit of what
/// they compute changes.
///
/// # Errors
/// `Torch`; also if called within itself.
pub fn watch_forward<T>(
    most: Option<u32>,
    forward: impl FnOnce() -> T,
) -> Result<(T, Vec<(String, Histogram)>), Error> {
    /// Ends the watch also if `forward` panics.
    struct Watching;
    impl Drop for Watching {
        fn drop(&mut self) {
            // Nothing is left to be told to anybody.
            let _ = seen();
        }
    }
    // SAFETY: takes a number, of which 0 stands for all elements.
    ffi::check(unsafe { ffi::lte_forward_watch(most.map_or(0, i64::from)) })?;
    let watching = Watching;
    let given = forward();
    std::mem::forget(watching);
    Ok((given, seen()?))
}

fn seen() -> Result<Vec<(String, Histogram)>, Error> {
    extern "C" fn push(sink: *mut c_void, name: *const c_char, length: usize, raw: *const CHistogram) {
        // SAFETY: `sink` is the list below; name and histogram live during the call.
        let (sink, name, raw) = unsafe {
            let sink = &mut *sink.cast::<Vec<(String, Histogram)>>();
            (sink, std::slice::from_raw_parts(name.cast::<u8>(), length), &*raw)
        };
        sink.push((String::from_utf8_lossy(name).into_owned(), convert(raw)));
    }
    let mut found: Vec<(String, Histogram)> = Vec::new();
    // SAFETY: the list lives during the call, and nobody else has it.
    ffi::check(unsafe { ffi::lte_forward_seen(push, (&raw mut found).cast()) })?;
    Ok(found)
}

fn convert(raw: &CHistogram) -> Histogram {
    let filled = (0_u16..).zip(raw.bins).filter(|(_, count)| *count > 0);
    Histogram {
        step: 0,
        at_ms: 0,
        count: raw.count,
        zeros: raw.zeros,
        nans: raw.nans,
        infs: raw.infs,
        min: raw.min,
        max: raw.max,
        mean: raw.mean,
        std: raw.std,
        bins: filled.collect(),
    }
}
